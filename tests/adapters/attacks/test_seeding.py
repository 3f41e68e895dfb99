from __future__ import annotations

import random

import numpy as np
import torch

from sparring.adapters.attacks.seeding import seeded


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.random()), float(torch.rand(1))  # noqa: NPY002


def test_one_seed_gives_the_same_numbers_and_another_gives_others() -> None:
    with seeded(5):
        first = draw()
    with seeded(5):
        assert draw() == first
    with seeded(6):
        assert all(a != b for a, b in zip(draw(), first, strict=True))


def test_whoever_draws_afterwards_does_not_notice() -> None:
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    draw()
    undisturbed = draw()
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    draw()
    with seeded(2):
        draw()
    assert draw() == undisturbed


def test_a_seed_beyond_32_bits_is_a_seed_too() -> None:
    with seeded(2**40 + 1):
        first = draw()
    with seeded(2**40 + 1):
        assert draw() == first
