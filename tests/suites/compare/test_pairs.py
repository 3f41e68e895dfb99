"""The comparison of two parties' images, against numbers worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparring.adapters.attacks.distances import distances
from sparring.suites.compare.pairs import compare
from sparring.suites.results.metrics import mcnemar, paired_difference

X = np.full((4, 1, 2, 2), 0.5, np.float32)
Y = np.zeros(4, np.int64)


def cell(x_adv: np.ndarray, predictions: list[int], **more: Any) -> dict[str, np.ndarray]:
    prediction = np.array(predictions)
    return {
        "x": X,
        "x_adv": x_adv,
        "y": Y,
        "pred_adv": prediction,
        "success": prediction != Y,
        **distances(X, x_adv),
        **more,
    }


def moved(*steps: float) -> np.ndarray:
    x = X.copy()
    for index, step in enumerate(steps):
        x[index, 0, 0, 0] += np.float32(step)
    return x


def test_images_are_compared_pixel_by_pixel() -> None:
    compared = compare([cell(moved(0.25, 0, 0, 0), [1, 0, 0, 0])], [cell(moved(0.25, 0.125, 0, 0), [1, 2, 0, 0])], "l2")
    assert (compared.n, compared.max_abs_diff, compared.mean_abs_diff) == (4, 0.125, 0.125 / 16)
    assert (compared.pixels_differing, compared.pixels_flat, compared.max_abs_diff_flat) == (1 / 16, 0, 0)
    assert compared.label_agreement == 0.75
    assert (compared.success_a, compared.success_b, compared.success_difference) == (0.25, 0.5, 0.25)
    assert compared.p_value == 1  # one image of four that only b turned proves nothing


def test_distances_are_paired_over_the_images_on_which_both_succeed() -> None:
    compared = compare(
        [cell(moved(0.25, 0.5, 0, 0), [1, 1, 0, 0])], [cell(moved(0.125, 0.5, 0.5, 0), [1, 1, 1, 0])], "l2"
    )
    assert (compared.distance_a, compared.distance_b) == (0.375, 0.3125)
    assert compared.distance_difference == -0.0625
    assert compared.distance_ratio == 2


def test_pixels_without_a_gradient_are_set_apart_and_counted() -> None:
    flat = np.zeros(X.shape, bool)
    flat[0, 0, 0, 0] = True
    a, b = cell(moved(0.25), [0] * 4), cell(moved(-0.25, 0.125), [0] * 4, flat=flat)
    for one, other in ((a, b), (b, a)):
        compared = compare([one], [other], "linf")
        assert (compared.max_abs_diff, compared.max_abs_diff_flat) == (0.125, 0.5)
        assert compared.pixels_flat == 1 / 16
        assert compared.mean_abs_diff == 0.125 / 15


def test_seeds_are_pooled() -> None:
    a = [cell(moved(), [0] * 4), cell(moved(), [0] * 4)]
    b = [cell(moved(), [0] * 4), cell(moved(0.5), [1, 1, 1, 1])]
    compared = compare(a, b, "l2")
    assert (compared.n, compared.label_agreement, compared.success_b) == (8, 0.5, 0.5)
    assert np.isnan(compared.distance_difference)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=30))
def test_the_paired_statistics_keep_their_laws(pairs: list[tuple[bool, bool]]) -> None:
    a, b = (np.array([pair[side] for pair in pairs], bool) for side in (0, 1))
    difference, low, high = paired_difference(a, b)
    assert -1 <= low <= difference + 1e-12
    assert difference <= high + 1e-12 <= 1 + 1e-12
    assert mcnemar(a, b) == mcnemar(b, a)
    assert (mcnemar(a, b) == 1) >= bool((a == b).all())
    mirrored, mirrored_low, _ = paired_difference(b, a)
    assert (mirrored, mirrored_low) == (pytest.approx(-difference), pytest.approx(-high))


def test_mcnemar_is_the_exact_binomial_test() -> None:
    a = np.array([True] * 8 + [False] * 4)
    b = np.array([False] * 8 + [False] * 4)
    assert mcnemar(a, b) == pytest.approx(2 / 2**8)
