"""Images on which an attack hangs on a rounding: found, and no others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from models_for_tests import cnn, images, labels
from torch import nn

from sparring.adapters.attacks.run import attack
from sparring.adapters.frameworks.pytorch import TorchClassifier
from sparring.suites.compare.pairs import IMAGES
from sparring.suites.compare.steadiness import SEEDS, unsteady
from sparring.suites.runner.cells import ULP, nudged


@given(seed=st.integers(1, 2**20))
def test_pixels_move_by_a_rounding_and_those_at_the_border_stay(seed: int) -> None:
    x = np.random.default_rng(seed).random((2, 1, 5, 5), dtype=np.float32)
    x[0, 0, 0], x[1, 0, 0] = 0, 1
    moved = nudged(x, seed)
    assert moved.dtype == np.float32
    assert 0 < np.abs(moved.astype(np.float64) - x).max() <= 2 * ULP
    assert (moved[:, 0, 0] == x[:, 0, 0]).all()
    assert (nudged(x, seed) == moved).all()


class Kink(nn.Module):
    """Its gradient changes direction where the first pixel passes 1/2."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.flatten(1)
        bent = torch.relu(x[:, :1] - 0.5) * 200 + x[:, 1:2]
        return torch.cat([bent, torch.zeros_like(bent)], 1)


def ends(classifier: Any, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return attack(
        classifier, x, y, "pgd", norm="l2", library="torchattacks", eps=0.1, steps=2, random_start=False
    ).images


def test_an_image_at_a_kink_is_unsteady_and_one_beside_it_is_not() -> None:
    classifier = TorchClassifier(Kink(), input_shape=(1, 2, 2), device="cpu")
    x = np.full((2, 1, 2, 2), 0.25, np.float32)
    x[0, 0, 0, 0] = 0.5
    y = np.zeros(2, np.int64)
    moved = unsteady(ends(classifier, x, y), [ends(classifier, nudged(x, seed), y) for seed in SEEDS], IMAGES)
    assert moved.tolist() == [True, False]


@pytest.mark.parametrize("seed", [0, 1])
def test_an_ordinary_network_is_steady(seed: int) -> None:
    x = images(8, seed=seed)
    y = labels(cnn(), x)
    moved = unsteady(ends(cnn(), x, y), [ends(cnn(), nudged(x, one), y) for one in SEEDS], IMAGES)
    assert not moved.any()
