from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from models_for_tests import cnn, images, labels

from sparring.adapters.attacks.seeding import seeded
from sparring.adapters.attacks.starts import HALVINGS, find_starts


def decide(x: np.ndarray) -> np.ndarray:
    return np.asarray(cnn().logits(x).argmax(axis=1))


@given(st.integers(0, 1000), st.booleans(), st.integers(0, 20))
@settings(max_examples=30, deadline=None)
def test_every_start_is_adversarial_and_in_the_box(seed: int, targeted: bool, draws: int) -> None:
    x = images(6, seed=seed)
    y = labels(cnn(), x)
    goals = (y + 1) % 10 if targeted else y
    with seeded(seed):
        rows, points = find_starts(decide, x, goals, targeted, draws)
    assert ((decide(points) == goals[rows]) if targeted else (decide(points) != goals[rows])).all()
    assert points.min(initial=0) >= 0
    assert points.max(initial=1) <= 1


@given(st.integers(0, 1000), st.integers(0, 20))
@settings(max_examples=30)
def test_a_start_lies_within_a_thousandth_of_its_line_from_the_boundary(seed: int, draws: int) -> None:
    rng = np.random.default_rng(seed)
    x = images(6, seed=seed)
    weights = rng.normal(size=x[0].size)
    offset = -np.median(x.reshape(len(x), -1) @ weights)  # so that both classes occur

    def margin(of: np.ndarray) -> np.ndarray:
        return of.reshape(len(of), -1).astype(np.float64) @ weights + offset

    def side(of: np.ndarray) -> np.ndarray:
        return (margin(of) > 0).astype(np.int64)

    y = side(x)
    with seeded(seed):
        rows, points = find_starts(side, x, y, False, draws)
    assert len(rows) == len(x)
    assert (side(points) != y[rows]).all()
    # along a line the margin of two classes is linear: ten halvings leave 2**-10 of what it can change over the box
    assert (np.abs(margin(points)) <= 2.0**-HALVINGS * np.abs(weights).sum() + 1e-5).all()


def test_images_already_adversarial_are_left_out() -> None:
    x = images(6)
    y = labels(cnn(), x)
    y[:2] = (y[:2] + 1) % 10
    with seeded(0):
        assert find_starts(decide, x, y, False, 100).rows.min() >= 2


def test_where_noise_will_not_do_another_image_of_the_batch_does() -> None:
    def bright(x: np.ndarray) -> np.ndarray:
        return (x.mean(axis=(1, 2, 3)) > 0.9).astype(np.int64)  # no uniform noise is that bright

    x = np.concatenate([np.zeros((3, 1, 8, 8), np.float32), np.ones((1, 1, 8, 8), np.float32)])
    with seeded(0):
        rows, points = find_starts(bright, x, np.array([0, 0, 0, 1]), False, 5)
    assert rows.tolist() == [0, 1, 2, 3]
    assert bright(points).tolist() == [1, 1, 1, 0]


def test_without_any_start_an_image_is_left_out() -> None:
    x = images(4)
    with seeded(0):
        rows, points = find_starts(lambda x: np.zeros(len(x), np.int64), x, np.zeros(4, np.int64), False, 3)
    assert len(rows) == len(points) == 0
