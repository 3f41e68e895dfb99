"""Transforms against their definitions, and their way back against differences, for any shape and any draw."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from sparring.adapters.wrappers import random_transforms as draws
from sparring.adapters.wrappers import transforms as plain

LINEAR = {
    "gaussian-blur": plain.gaussian_blur(1.3),
    "mean of 2": plain.mean_smoothing(2),
    "mean of 3": plain.mean_smoothing(3),
    "rotation": draws.random_rotation(40),
    "shift": draws.random_shift(0.3),
    "randomization": draws.randomization(15, 0.1, 0.2, 0),
    "resize": draws.random_resize_pad(0.5),
}
OTHERS = {
    "bit-depth": plain.bit_depth(4),
    "median of 2": plain.median_smoothing(2),
    "median of 3": plain.median_smoothing(3),
    "jpeg": plain.jpeg(40),
    "noise": draws.random_noise(0.3),
    "all": draws.randomization(15, 0.1, 0.2, 0.4),
    "variation": draws.total_variation(0.1, 0.5, 20),
    "variation of all": draws.total_variation(0.1, 1, 20),
}
DERIVATIVE = {**LINEAR, **{name: OTHERS[name] for name in ("median of 2", "median of 3", "noise", "all")}}
ALL = {**LINEAR, **OTHERS}

shapes = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(2, 9), st.integers(2, 9))
seeds = st.integers(0, 2**16)


def coins(seed: int):
    return lambda row: np.random.default_rng([seed, row])


def drawn(seed: int, shape: tuple[int, ...], low: float = 0.0, high: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=15)
@given(shape=shapes, seed=seeds)
def test_images_stay_images_and_the_same_draw_gives_the_same(name, shape, seed) -> None:
    x = np.round(drawn(seed, shape, -0.4, 1.4).clip(0, 1), 3)  # a good part of it on the border of the box
    kept = x.copy()
    moved, pull = ALL[name](x, coins(seed))
    assert moved.shape == x.shape
    assert moved.dtype == np.float32
    assert moved.min() >= 0
    assert moved.max() <= 1
    gradient = drawn(seed + 1, shape, -1, 1)
    back = pull(gradient)
    assert back.shape == x.shape
    assert back.dtype == np.float32
    assert not np.shares_memory(moved, x)
    np.testing.assert_array_equal(x, kept)
    np.testing.assert_array_equal(ALL[name](x, coins(seed))[0], moved)
    np.testing.assert_array_equal(gradient, drawn(seed + 1, shape, -1, 1))


@pytest.mark.parametrize("name", LINEAR)
@settings(max_examples=25)
@given(shape=shapes, seed=seeds)
def test_the_way_back_of_a_linear_transform_is_its_transpose(name, shape, seed) -> None:
    x, gradient = drawn(seed, shape), drawn(seed + 1, shape, -1, 1)
    moved, pull = LINEAR[name](x, coins(seed))
    there = (moved.astype(np.float64) * gradient).sum()
    back = (x.astype(np.float64) * pull(gradient)).sum()
    assert there == pytest.approx(back, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("name", DERIVATIVE)
@settings(max_examples=15)
@given(shape=shapes, seed=seeds)
def test_the_way_back_is_the_derivative(name, shape, seed) -> None:
    """Central differences, on images whose values are so far apart that no step changes their order."""
    rng, count = np.random.default_rng(seed), int(np.prod(shape))
    x = (0.3 + 0.4 * rng.permutation(count) / count).reshape(shape).astype(np.float32)
    direction, gradient = drawn(seed + 1, shape, -1, 1), drawn(seed + 2, shape, -1, 1)
    transform, step = DERIVATIVE[name], np.float32(1e-4)
    moved, pull = transform(x, coins(seed))
    ahead, behind = (transform(x + sign * step * direction, coins(seed))[0] for sign in (1, -1))
    far = (moved > 1e-3) & (moved < 1 - 1e-3) | (ahead == behind)  # not where noise ends at the border of the box
    slope = ((ahead.astype(np.float64) - behind) / (2 * step) * gradient * far).sum()
    told = (pull(gradient * far).astype(np.float64) * direction).sum()
    assert slope == pytest.approx(told, abs=5e-3 * np.sqrt(count))


def test_bit_depth_is_rounding_to_evenly_spread_levels() -> None:
    x = np.array([0, 0.49, 0.51, 1, -0.2, 1.3], np.float32).reshape(1, 1, 2, 3)
    np.testing.assert_array_equal(plain.bit_depth(2)(x, coins(0))[0].ravel(), [0, 0, 1, 1, 0, 1])
    every = np.linspace(0, 1, 256, dtype=np.float32).reshape(1, 1, 16, 16)
    assert len(np.unique(plain.bit_depth(32)(every, coins(0))[0])) == 32
    np.testing.assert_array_equal(plain.bit_depth(256)(every, coins(0))[0], every)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_filters_are_scipys(size) -> None:
    x = drawn(0, (2, 3, 7, 5))
    window = (1, 1, size, size)
    median, mean = plain.median_smoothing(size)(x, coins(0))[0], plain.mean_smoothing(size)(x, coins(0))[0]
    np.testing.assert_array_equal(median, ndimage.median_filter(x, size=window, mode="reflect"))
    np.testing.assert_allclose(mean, ndimage.uniform_filter(x, size=window, mode="reflect"), atol=1e-6)
    blurred = plain.gaussian_blur(size)(x, coins(0))[0]
    np.testing.assert_allclose(blurred, ndimage.gaussian_filter(x, (0, 0, size, size), mode="reflect"), atol=1e-6)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_jpeg_is_pillows_at_that_quality(channels) -> None:
    x = drawn(0, (2, channels, 16, 24))
    moved = plain.jpeg(30)(x, coins(0))[0]
    for image, found in zip(x, moved, strict=True):
        pixels = np.rint(image * 255).astype(np.uint8).transpose(1, 2, 0)
        planes = [pixels] if channels == 3 else [pixels[..., channel] for channel in range(channels)]
        for index, plane in enumerate(planes):
            file = BytesIO()
            Image.fromarray(np.ascontiguousarray(plane)).save(file, "jpeg", quality=30)
            there = np.asarray(Image.open(file)) / 255
            here = found.transpose(1, 2, 0) if channels == 3 else found[index]
            np.testing.assert_allclose(here, there, atol=1e-6)
    worse = plain.jpeg(5)(x, coins(0))[0]
    assert np.abs(worse - x).mean() > np.abs(moved - x).mean() > 1 / 255


def test_a_shift_by_whole_pixels_moves_them_and_repeats_the_edge() -> None:
    x = drawn(0, (1, 2, 6, 8))
    ones = np.ones((2, 1))
    moved, _ = draws._moved(x, np.zeros(1), np.array([[1 / 6], [-2 / 8]]), ones)
    np.testing.assert_allclose(moved[:, :, 1:, :-2], x[:, :, :-1, 2:], atol=1e-6)
    np.testing.assert_allclose(moved[:, :, 0, :-2], x[:, :, 0, 2:], atol=1e-6)
    np.testing.assert_allclose(moved[:, :, 1:, -1], x[:, :, :-1, -1], atol=1e-6)


def test_a_quarter_turn_is_numpys_and_a_zoom_is_scipys() -> None:
    x = drawn(0, (1, 1, 7, 7))
    turned, _ = draws._moved(x, np.array([np.pi / 2]), np.zeros((2, 1)), np.ones((2, 1)))
    assert min(np.abs(turned - np.rot90(x, turns, (2, 3))).max() for turns in (1, 3)) < 1e-5
    grown, _ = draws._moved(x, np.zeros(1), np.zeros((2, 1)), np.full((2, 1), 1.25))
    expected = ndimage.affine_transform(x[0, 0], np.full(2, 0.8), 3 - 0.8 * 3, order=1, mode="nearest")
    np.testing.assert_allclose(grown[0, 0], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("transform", "still"),
    [
        (draws.random_rotation(0), True),
        (draws.random_resize_pad(1), True),
        (draws.random_noise(0), True),
        (draws.randomization(0, 0, 0, 0), True),
        (draws.random_rotation(15), False),
        (draws.random_shift(0.1), False),
        (draws.random_resize_pad(0.7), False),
        (draws.random_noise(0.1), False),
    ],
)
def test_nothing_is_done_where_nothing_may_be_and_each_image_has_its_own_draw(transform, still) -> None:
    x = np.repeat(drawn(0, (1, 3, 9, 9)), 3, axis=0)
    moved, _ = transform(x, coins(0))
    assert (np.abs(moved - x).max() < 1e-6) == still
    assert (np.abs(moved[0] - moved[1]).max() < 1e-6) == still


def test_rotations_shifts_and_sizes_fill_their_range() -> None:
    """A spot's place tells the shift; 400 draws of a uniform come within 2 % of both ends."""
    x = np.zeros((400, 1, 41, 41), np.float32)
    x[:, :, 19:22, 19:22] = 1
    moved, _ = draws.random_shift(0.25)(x, coins(3))
    weights = moved[:, 0] / moved.sum(axis=(1, 2, 3))[:, None, None]
    down, right = ((weights.sum(axis=2 - axis) * np.arange(41)).sum(axis=1) - 20 for axis in (0, 1))
    for one in (down, right):
        assert -0.25 * 41 <= one.min() + 1e-3 < -0.24 * 41
        assert 0.24 * 41 < one.max() - 1e-3 <= 0.25 * 41
    assert abs(np.corrcoef(down, right)[0, 1]) < 0.2
    square = np.zeros((400, 1, 41, 41), np.float32)
    square[:, :, 10:31, 10:31] = 1
    grown = draws.randomization(0, 0, 0.2, 0)(square, coins(0))[0]
    for sides in (grown.sum(axis=(1, 2)).max(axis=1) / 21, grown.sum(axis=(1, 3)).max(axis=1) / 21):
        assert 0.79 < sides.min() < 0.82
        assert 1.18 < sides.max() < 1.21
    white = draws.random_resize_pad(0.5)(np.ones((200, 1, 40, 40), np.float32), coins(0))[0]
    sides = np.sqrt(white.sum(axis=(1, 2, 3)))
    assert 20 <= sides.min() + 1e-3 < 21.01
    assert sides.max() == pytest.approx(40, abs=1)
    corners = [white[:, 0, row, column].mean() for row in (0, -1) for column in (0, -1)]
    assert min(corners) > 0  # it is put everywhere


def test_noise_has_the_deviation_that_is_asked_for() -> None:
    noisy = draws.random_noise(0.05)(np.full((4, 3, 32, 32), 0.5, np.float32), coins(0))[0]
    assert noisy.std() == pytest.approx(0.05, rel=0.02)
    assert noisy.mean() == pytest.approx(0.5, abs=0.002)


def _value(x: np.ndarray, image: np.ndarray, kept: np.ndarray, weight: float) -> float:
    down, right = np.zeros_like(x), np.zeros_like(x)
    down[:, :, :-1], right[..., :-1] = np.diff(x, axis=2), np.diff(x, axis=3)
    return float(0.5 * (kept * (x - image) ** 2).sum() + weight * np.sqrt(down**2 + right**2).sum())


@pytest.mark.parametrize("keep", [0.5, 1])
def test_total_variation_finds_the_minimum(keep) -> None:
    """No small change of what was found, of many, is better; what was found is far better than what was given."""
    x = drawn(0, (1, 1, 8, 8)).astype(np.float64)
    kept = np.ones_like(x) if keep == 1 else (coins(5)(0).random((1, 8, 8)) < keep)[None].astype(np.float64)
    found = draws.total_variation(0.1, keep, 3000)(x.astype(np.float32), coins(5))[0].astype(np.float64)
    least = _value(found, x, kept, 0.1)
    assert least < 0.7 * _value(x, x, kept, 0.1)
    rng = np.random.default_rng(1)
    for size in (1e-3, 1e-2, 1e-1):
        for _ in range(50):
            other = np.clip(found + size * rng.normal(size=x.shape), 0, 1)
            assert _value(other, x, kept, 0.1) >= least - 1e-5


def test_total_variation_knows_nothing_of_the_pixels_that_are_dropped() -> None:
    x = drawn(0, (1, 1, 8, 8))
    kept = coins(5)(0).random((1, 8, 8)) < 0.5
    other = np.where(kept, x, 1 - x)
    transform = draws.total_variation(0.1, 0.5, 30)
    np.testing.assert_array_equal(transform(x, coins(5))[0], transform(other, coins(5))[0])
    assert np.abs(transform(x, coins(5))[0] - x).max() > 0.1
