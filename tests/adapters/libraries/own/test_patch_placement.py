"""Where patches lie, what they cover, and that the way back is the transpose of the way there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparring.adapters.libraries.own.patch_placement import Range, draw, mask, paste, place, pull

RANGES = st.builds(
    lambda size, round, rotation, low, more: Range(size, round, rotation, (low, low + more)),
    st.integers(1, 9),
    st.booleans(),
    st.floats(0, 180),
    st.floats(0.3, 1.2),
    st.floats(0, 0.5),
)
SIDES = st.tuples(st.integers(9, 24), st.integers(9, 24))


def case(where: Range, sides: tuple[int, int], seed: int, n: int = 3) -> Any:
    generator = np.random.default_rng(seed)
    x = generator.random((n, 2, *sides), np.float32)
    patch = generator.random((2, where.size, where.size))
    placements = [draw(generator, where, *sides) for _ in range(n)]
    return x, patch, placements, [place(one, where, *sides) for one in placements]


@given(RANGES, SIDES, st.integers(0, 10**6))
def test_pixels_that_the_patch_does_not_cover_stay_and_the_others_are_mixtures_of_it(
    where: Range, sides: tuple[int, int], seed: int
) -> None:
    x, patch, _, places = case(where, sides, seed)
    before = x.copy()
    pasted = paste(x, patch, places)
    np.testing.assert_array_equal(x, before)
    assert pasted.dtype == np.float32
    for image, after, placed in zip(x, pasted, places, strict=True):
        covered = np.zeros(sides[0] * sides[1], bool)
        covered[placed.pixels] = True
        assert covered.sum() == len(placed.pixels)
        flat, flat_after = image.reshape(2, -1), after.reshape(2, -1)
        np.testing.assert_array_equal(flat_after[:, ~covered], flat[:, ~covered])
        low, high = (getattr(patch, end)(axis=(1, 2))[:, None] for end in ("min", "max"))
        assert (flat_after[:, covered] >= low - 1e-6).all()
        assert (flat_after[:, covered] <= high + 1e-6).all()
        np.testing.assert_allclose(placed.weights.sum(axis=1), 1, atol=1e-12)


@given(RANGES, SIDES, st.integers(0, 10**6))
def test_the_way_back_is_the_transpose(where: Range, sides: tuple[int, int], seed: int) -> None:
    x, patch, _, places = case(where, sides, seed)
    gradient = np.random.default_rng(seed + 1).standard_normal(x.shape)
    by_pasting = (gradient * (paste(0 * x, patch, places) - paste(0 * x, 0 * patch, places))).sum()
    back = (pull(gradient, places, where.size) * patch).sum()
    assert by_pasting == pytest.approx(back, abs=1e-4)


@given(RANGES, SIDES, st.integers(0, 10**6))
def test_a_patch_that_fits_lies_within_the_image(where: Range, sides: tuple[int, int], seed: int) -> None:
    generator = np.random.default_rng(seed)
    row, column, degrees, scale = draw(generator, where, *sides)
    assert abs(degrees) <= where.rotation
    assert where.scales[0] - 1e-9 <= scale <= where.scales[1] + 1e-9
    turned = np.radians(degrees)
    reach = where.size / 2 * scale * (1 if where.round else abs(np.sin(turned)) + abs(np.cos(turned)))
    for middle, side in ((row, sides[0]), (column, sides[1])):
        # the middles of pixels are whole numbers, so that the image goes from -1/2 to side - 1/2
        if 2 * reach <= side - 1:
            assert -0.5 - 1e-6 <= middle - reach <= middle + reach <= side - 0.5 + 1e-6
        assert (middle - (where.size - 1) / 2) % 1 == pytest.approx(0)


@pytest.mark.parametrize("round", [False, True])
def test_a_patch_that_is_neither_turned_nor_scaled_is_there_pixel_by_pixel(round: bool) -> None:
    where = Range(5, round, 0, (1, 1))
    x, patch, placements, places = case(where, (12, 15), 0, 20)
    visible = mask(5, round)
    corners = set()
    for image, pasted, (row, column, *_) in zip(x, paste(x, patch, places), placements, strict=True):
        top, left = int(row - 2), int(column - 2)
        corners.add((top, left))
        expected = image.copy()
        expected[:, top : top + 5, left : left + 5][:, visible] = patch[:, visible]
        np.testing.assert_allclose(pasted, expected, atol=1e-6)
    assert visible.sum() == (21 if round else 25)
    assert len(corners) > 10


@pytest.mark.parametrize("quarters", [1, 2, 3, -1])
def test_it_turns_counterclockwise(quarters: int) -> None:
    x = np.zeros((1, 1, 9, 9), np.float32)
    patch = np.random.default_rng(0).random((1, 5, 5))
    placed = place(np.array([4.0, 4, 90 * quarters, 1]), Range(5, False, 180, (1, 1)), 9, 9)
    pasted = paste(x, patch, [placed])[0, :, 2:7, 2:7]
    # on the border of the patch rounding decides whether a pixel is covered
    np.testing.assert_allclose(pasted[:, 1:4, 1:4], np.rot90(patch, quarters, (1, 2))[:, 1:4, 1:4], atol=1e-6)


def test_twice_as_large_covers_four_times_as_much() -> None:
    counts = [
        len(place(np.array([20.0, 20, 30, scale]), Range(9, False, 30, (1, 2)), 41, 41).pixels) for scale in (1.0, 2.0)
    ]
    assert counts[0] == pytest.approx(81, abs=4)
    assert counts[1] == pytest.approx(4 * 81, abs=8)


def test_a_patch_too_large_when_it_is_turned_lies_in_the_middle() -> None:
    row, column, *_ = draw(np.random.default_rng(0), Range(9, False, 45, (1, 1)), 9, 11)
    assert (row, column) in {(4.0, 4.0), (4.0, 5.0), (4.0, 6.0)}
