"""A named architecture computes the same in torch and in Keras, whichever way its weights were moved."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest

from sparring.adapters.wrap import wrap
from sparring.models import architectures, convert, weights

SHAPES = {
    "cnn": (3, 10, 14),
    "dnn": (3, 10, 14),
    "rnn": (3, 10, 14),
    "gru": (3, 10, 14),
    "simple_rnn": (1, 10, 14),
    "resnet18": (3, 32, 32),
    "resnet50": (3, 32, 32),
    "mobilenet_v2": (3, 35, 32),
}
CLASSES = 7


def random_arrays(arrays, seed=0):
    """Biases and batch statistics that are not what a fresh network has: zeros and ones would hide a mistake."""
    rng = np.random.default_rng(seed)
    drawn = {}
    for key, value in arrays.items():
        part = key.replace("/", ".").rpartition(".")[2]
        value = np.asarray(value)
        if part in ("running_mean", "moving_mean", "beta") or "bias" in part:
            value = rng.normal(0, 0.2, value.shape).astype(np.float32)
        elif part in ("running_var", "moving_variance", "gamma") or (part == "weight" and value.ndim == 1):
            value = rng.uniform(0.5, 1.5, value.shape).astype(np.float32)
        drawn[key] = value
    return drawn


@lru_cache
def source(name, framework):
    import keras
    import torch

    torch.manual_seed(0)
    keras.utils.set_random_seed(0)
    network = architectures.find(name, framework).build(framework, SHAPES[name], CLASSES)
    if framework == "torch":
        weights.put_torch(network, random_arrays(weights.torch_arrays(network)), "drawn")
        return network.eval()
    weights.put_keras(network, random_arrays(weights.keras_arrays(network)), "drawn")
    return network


@lru_cache
def moved(name, framework):
    """The source of that framework in the other."""
    there = convert.to_keras if framework == "torch" else convert.to_torch
    return there(source(name, framework), name, SHAPES[name], CLASSES)


def compare(one, other, shape):
    """The largest difference of a logit, and the cosine of the gradients of the same function of the logits."""
    rng = np.random.default_rng(1)
    x, cotangent = rng.random((6, *shape), np.float32), rng.normal(size=(6, CLASSES)).astype(np.float32)
    a, b = (wrap(model, input_shape=shape, device="cpu") for model in (one, other))
    difference = np.abs(a.logits(x) - b.logits(x)).max() / max(1.0, np.abs(a.logits(x)).max())
    g, h = (classifier.vjp(x, cotangent).astype(np.float64).reshape(6, -1) for classifier in (a, b))
    cosine = (g * h).sum(1) / np.linalg.norm(g, axis=1) / np.linalg.norm(h, axis=1)
    return difference, cosine.min()


@pytest.mark.parametrize("framework", ["torch", "keras"])
@pytest.mark.parametrize("name", SHAPES)
def test_the_weights_moved_compute_the_same(name, framework):
    difference, cosine = compare(source(name, framework), moved(name, framework), SHAPES[name])
    print(name, framework, difference, cosine)
    assert difference < 1e-5
    assert cosine > 0.9999
