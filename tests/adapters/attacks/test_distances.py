"""Distances against NumPy's norms, and the projection against what a ball is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sparring.adapters.attacks.distances import TOLERANCE, distances, project

pictures = arrays(np.float32, (4, 2, 3, 3), elements=st.floats(0, 1, width=32))


@given(pictures, pictures)
def test_every_norm_is_that_of_the_flattened_difference(x, x_adv):
    found = distances(x, x_adv)
    delta = (x_adv.astype(np.float64) - x.astype(np.float64)).reshape(4, -1)
    for name, order in (("l0", 0), ("l1", 1), ("l2", 2), ("linf", np.inf)):
        assert found[name] == pytest.approx([np.linalg.norm(row, order) for row in delta])


@given(pictures, pictures, st.floats(0.01, 2), st.sampled_from(["linf", "l2"]))
def test_the_projection_keeps_the_budget_and_leaves_the_others_alone(x, x_adv, eps, norm):
    legal, moved, excess = project(x, x_adv, norm, eps)
    before = distances(x, x_adv)[norm]
    assert (distances(x, legal)[norm] <= eps + TOLERANCE).all()
    assert (moved == (before > eps + TOLERANCE)).all()
    assert (legal[~moved] == x_adv[~moved]).all()
    assert legal.min() >= 0
    assert legal.max() <= 1
    assert excess == pytest.approx(max(0.0, (before - eps).max()))


def test_no_images_have_no_distances():
    empty = np.zeros((0, 1, 2, 2), np.float32)
    assert all(len(values) == 0 for values in distances(empty, empty).values())
