"""A small network for scikit-learn's digits, and digits that it was not trained on."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import nn

from sparring.adapters.frameworks.pytorch import TorchClassifier

Part = tuple[np.ndarray, np.ndarray]


@lru_cache
def _every() -> Part:
    from sklearn.datasets import load_digits

    found = load_digits()
    return (found.images[:, None] / 16).astype(np.float32), found.target.astype(np.int64)


def digits() -> tuple[Part, Part]:
    """100 to fit an attack on, and 100 others to try it on: images (100, 1, 8, 8) in [0, 1], and their classes."""
    x, y = _every()
    return (x[1000:1100], y[1000:1100]), (x[1100:1200], y[1100:1200])


@lru_cache
def network() -> TorchClassifier:
    """A small convolutional network, trained on the first 1,000."""
    x, y = (torch.from_numpy(part[:1000]) for part in _every())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 24, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(24 * 16, 10),
        )
        optimiser = torch.optim.Adam(net.parameters(), lr=5e-3)
        for _ in range(8):
            for rows in torch.randperm(1000).split(50):
                optimiser.zero_grad()
                nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
                optimiser.step()
    return TorchClassifier(net, input_shape=(1, 8, 8), device="cpu")
