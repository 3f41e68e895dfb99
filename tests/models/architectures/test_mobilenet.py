"""The ImageNet weights through the same door into both frameworks, on real photographs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sparring.adapters.errors import InputError
from sparring.models.architectures import mobilenet
from sparring.models.data import datasets
from sparring.models.model_spec import model_spec
from sparring.models.prepared import prepare as load
from sparring.models.spec import DataSpec

BASE = Path(".")
DATA = DataSpec(name="imagenet-samples", samples=60)


def model(framework, **keys):
    keys = {"name": "net", "architecture": "mobilenet_v2", "weights": "imagenet-mobilenet", **keys}
    return model_spec(framework=framework, **keys)


@pytest.fixture(scope="module")
def scores():
    """The logits of both frameworks for 60 photographs."""
    import os

    if not os.environ.get("SPARRING_DATA"):
        pytest.skip("SPARRING_DATA is not set: this test reads the real data")
    data = datasets.load(DATA, base=BASE)
    refs = [load.prepare(model(framework), data=DATA, base=BASE) for framework in ("torch", "keras")]
    assert refs[0].digest != refs[1].digest  # two layouts are two models
    return data, [load.open_model(ref).logits(data.x) for ref in refs]


def test_the_accuracy_is_that_of_the_weights(scores):
    """On all 1000 pictures both have 87.5 % and 97.5 %, as the README of the weights says; of these 60, 55 and 58."""
    data, logits = scores
    for each in logits:
        ranked = np.argsort(-each, axis=1)
        assert (ranked[:, 0] == data.y).sum() == 55
        assert (ranked[:, :5] == data.y[:, None]).sum() == 58


def test_torch_and_keras_agree(scores):
    _, (ours, theirs) = scores
    np.testing.assert_allclose(ours, theirs, atol=2e-4)
    assert abs(ours).max() > 10


@pytest.mark.parametrize("framework", ["torch", "keras"])
def test_other_weights_are_named(tmp_path, real_data, framework):
    arrays = dict(np.load(real_data / "imagenet-mobilenet" / "mobilenet_v2_1.0_224.npz"))
    del arrays["block_3_expand/bias"]
    np.savez(tmp_path / "part.npz", **arrays)
    with pytest.raises(InputError, match=r"part\.npz is no folded MobileNet v2: it lacks 'block_3_expand/bias'"):
        load.prepare(model(framework, weights="part.npz"), data=DATA, base=tmp_path)


def test_the_table_of_layers_is_that_of_keras():
    import keras

    net = keras.applications.MobileNetV2(input_shape=(32, 32, 3), weights=None)
    theirs = [
        (layer.name, layer.kernel_size[0], layer.strides[0], isinstance(layer, keras.layers.DepthwiseConv2D))
        for layer in net.layers
        if isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D)
    ]
    assert [(c.name, c.size, c.stride, c.depthwise) for c in mobilenet.CONVOLUTIONS] == theirs
    assert sum(c.adds_shortcut for c in mobilenet.CONVOLUTIONS) == sum(
        isinstance(x, keras.layers.Add) for x in net.layers
    )
