"""Small classifiers whose weights are given or drawn from a seed, and images for them."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import nn

from sparring.adapters.pytorch import TorchClassifier

torch.set_num_threads(1)


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
