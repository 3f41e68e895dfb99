"""Small classifiers whose weights are given or drawn from a seed, and images for them."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import nn

from sparring.adapters.frameworks.pytorch import TorchClassifier

LIGHT: dict[tuple[str, str], dict[str, Any]] = {
    ("fgsm", "linf"): {"eps": 0.05},
    ("bim", "linf"): {"eps": 0.05, "steps": 3},
    ("pgd", "linf"): {"eps": 0.05, "steps": 3},
    ("pgd", "l2"): {"eps": 0.3, "steps": 3},
    ("mi-fgsm", "linf"): {"eps": 0.05, "steps": 3},
    ("ni-fgsm", "linf"): {"eps": 0.05, "steps": 3},
    ("si-ni-fgsm", "linf"): {"eps": 0.05, "steps": 3, "scales": 2},
    ("vmi-fgsm", "linf"): {"eps": 0.05, "steps": 3, "samples": 2},
    ("vni-fgsm", "linf"): {"eps": 0.05, "steps": 3, "samples": 2},
    ("deepfool", "l2"): {"steps": 10},
    ("cw", "l2"): {"steps": 30, "search_steps": 3},
    ("jsma", "l0"): {},
    ("square", "linf"): {"eps": 0.05, "queries": 60},
    ("square", "l2"): {"eps": 0.5, "queries": 60},
    ("apgd", "linf"): {"eps": 0.05, "steps": 3},
    ("apgd", "l2"): {"eps": 0.3, "steps": 3},
    ("autoattack", "linf"): {"eps": 0.05, "steps": 3, "queries": 20},
    ("autoattack", "l2"): {"eps": 0.3, "steps": 3, "queries": 20},
    ("pixle", "l0"): {"restarts": 2, "iterations": 3},
    ("one-pixel", "l0"): {"pixels": 2, "steps": 2},
    ("hopskipjump", "l2"): {"steps": 2, "initial_evaluations": 20},
    ("hopskipjump", "linf"): {"steps": 2, "initial_evaluations": 20},
    ("boundary", "l2"): {"steps": 10},
    ("salt-and-pepper", "l2"): {"steps": 20},
    ("pixel-swap", "l0"): {},
    ("uniform-noise", "linf"): {"eps": 0.1},
    ("gaussian-noise", "l2"): {"eps": 0.5},
}
"""Parameters that make every canonical attack short."""


class OutputsOnly:
    """A classifier's outputs without its gradients: what an ONNX session has."""

    framework = "onnx"

    def __init__(self, inner: Any) -> None:
        self.inner, self.input_shape, self.classes = inner, inner.input_shape, inner.classes

    def logits(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(self.inner.logits(x))


@lru_cache
def keras_cnn(classes: int = 10) -> Any:
    """On TensorFlow, 1 x 8 x 8 pixels."""
    import keras

    from sparring.adapters.frameworks.keras import keras_classifier

    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(6, 3, padding="same", activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(classes, kernel_initializer=keras.initializers.RandomNormal(stddev=0.7)),
        ]
    )
    return keras_classifier(model)


def images(n: int = 8, shape: tuple[int, int, int] = (1, 8, 8), seed: int = 0) -> np.ndarray:
    """Away from the box's border, so that no attack is clipped at once."""
    return np.random.default_rng(seed).uniform(0.3, 0.7, (n, *shape)).astype(np.float32)


@lru_cache
def cnn(shape: tuple[int, int, int] = (1, 8, 8), classes: int = 10, seed: int = 0) -> TorchClassifier:
    """Untrained, with boundaries near the images."""
    torch.manual_seed(seed)
    channels, height, width = shape
    net = nn.Sequential(
        nn.Conv2d(channels, 6, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(6 * (height // 2) * (width // 2), classes),
    )
    with torch.no_grad():
        net[-1].weight *= 5  # type: ignore[operator]
        net[-1].bias.copy_(-net(torch.full((1, *shape), 0.5))[0] + net[-1].bias)  # type: ignore[operator]
    return TorchClassifier(net, input_shape=shape, device="cpu")


def labels(classifier: Any, x: np.ndarray) -> np.ndarray:
    """What the classifier says: all are right before the attack."""
    return np.asarray(classifier.logits(x).argmax(axis=1), np.int64)


def linear(classes: int, shape: tuple[int, int, int] = (1, 6, 6), seed: int = 0) -> tuple[TorchClassifier, np.ndarray]:
    """logits = weights · (pixels - 1/2), and the weights (classes, pixels)."""
    pixels = int(np.prod(shape))
    weights = np.random.default_rng(seed).normal(0, 1, (classes, pixels)).astype(np.float32)
    layer = nn.Linear(pixels, classes)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weights))
        layer.bias.copy_(torch.from_numpy(-0.5 * weights.sum(axis=1)))
    return TorchClassifier(nn.Sequential(nn.Flatten(), layer), input_shape=shape, device="cpu"), weights
