"""Small classifiers with a peculiarity each, and images for them: what differences between libraries are sought on."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import nn

from sparring.adapters.frameworks.pytorch import TorchClassifier


class Scaled(nn.Module):
    """A network's logits times a factor: the more, the surer it is of everything."""

    def __init__(self, inner: nn.Module, factor: float) -> None:
        super().__init__()
        self.inner, self.factor = inner, factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.factor * self.inner(x)


def _centred(net: nn.Sequential, shape: tuple[int, int, int], spread: float = 5) -> nn.Sequential:
    """Boundaries near the middle of the box, and logits some units apart."""
    net.eval()
    last = net[-1]
    with torch.no_grad():
        last.weight *= spread  # type: ignore[operator]
        last.bias.copy_(last.bias - net(torch.full((1, *shape), 0.5))[0])  # type: ignore[operator, union-attr]
    return net


def _plain(shape: tuple[int, int, int]) -> nn.Sequential:
    torch.manual_seed(3)
    net = nn.Sequential(
        nn.Conv2d(shape[0], 6, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(6 * (shape[1] // 2) * (shape[2] // 2), 10),
    )
    return _centred(net, shape)


def _normalised(shape: tuple[int, int, int]) -> nn.Sequential:
    torch.manual_seed(4)
    net = nn.Sequential(
        nn.Conv2d(shape[0], 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Conv2d(6, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 10),
    )
    with torch.no_grad():
        for _ in range(20):  # running statistics that are not those of the start
            net(torch.rand(64, *shape))
    return _centred(net, shape, 10)


def _tied(shape: tuple[int, int, int]) -> nn.Sequential:
    """Its last two classes always score the same."""
    net = _plain(shape)
    with torch.no_grad():
        net[-1].weight[8] = net[-1].weight[9]  # type: ignore[index, operator]
        net[-1].bias[8] = net[-1].bias[9]  # type: ignore[index, operator]
    return net


def _dead(shape: tuple[int, int, int]) -> nn.Sequential:
    """Without any gradient where the image is darker than the middle."""
    torch.manual_seed(5)
    pixels = int(np.prod(shape))
    net = nn.Sequential(nn.Flatten(), nn.Linear(pixels, 16), nn.ReLU(), nn.Linear(16, 4))
    with torch.no_grad():
        net[1].weight.copy_(torch.rand(16, pixels) * 4 / pixels)  # type: ignore[operator]
        net[1].bias.fill_(-1)  # type: ignore[operator]
    return net


ONE, THREE = (1, 8, 8), (3, 8, 8)
TORCH: dict[str, Callable[[], tuple[nn.Module, tuple[int, int, int]]]] = {
    "one channel": lambda: (_plain(ONE), ONE),
    "three channels": lambda: (_plain(THREE), THREE),
    "batch norm and average pooling": lambda: (_normalised(THREE), THREE),
    "a tie between classes": lambda: (_tied(ONE), ONE),
    "saturated": lambda: (Scaled(_plain(ONE), 20), ONE),
    "more saturated": lambda: (Scaled(_plain(ONE), 100), ONE),
    "no gradient in the dark": lambda: (_dead(ONE), ONE),
}
KERAS = ("keras cnn", "keras recurrent", "keras saturated")


@lru_cache
def odd(name: str) -> Any:
    """The classifier of that name."""
    if name in KERAS:
        return _keras(name)
    net, shape = TORCH[name]()
    return TorchClassifier(net, input_shape=shape, device="cpu")


def _keras(name: str) -> Any:
    import keras

    from sparring.adapters.frameworks.keras import keras_classifier

    keras.utils.set_random_seed(0)
    normal = keras.initializers.RandomNormal(stddev=70 if name == "keras saturated" else 0.7)
    if name != "keras recurrent":
        layers = [
            keras.layers.Conv2D(6, 3, padding="same", activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(10, kernel_initializer=normal),
        ]
    else:
        layers = [
            keras.layers.Reshape((8, 8)),
            keras.layers.LSTM(12),
            keras.layers.Dense(10, kernel_initializer=normal),
        ]
    return keras_classifier(keras.Sequential([keras.Input((8, 8, 1)), *layers]))


def digits(classifier: Any, n: int = 16, seed: int = 0) -> np.ndarray:
    """Images of noise with some pixels at exactly 0 and 1, as real ones have."""
    noise = np.random.default_rng(seed).uniform(-0.2, 1.2, (n, *classifier.input_shape))
    return np.clip(noise, 0, 1).astype(np.float32)
