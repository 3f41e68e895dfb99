"""sparring's JSMA against the referee's: the same algorithm, in batches and in float32."""

from __future__ import annotations

import numpy as np
import pytest
from closed_forms import Linear
from hypothesis import given, settings
from hypothesis import strategies as st
from models_for_tests import OutputsOnly, cnn, images, labels

from sparring.adapters import referee
from sparring.adapters.attacks import find
from sparring.adapters.errors import NotSupported
from sparring.adapters.execute import attack
from sparring.adapters.own_jsma import jsma


@settings(max_examples=40, deadline=None)
@given(
    theta=st.sampled_from([1.0, 0.25, -1.0, -0.25]), gamma=st.floats(0.01, 1), classes=st.integers(2, 5),
    seed=st.integers(0, 10**6),
)  # fmt: skip
def test_it_takes_the_referee_s_pairs(theta, gamma, classes, seed):
    """On derivatives that are the same in both precisions, with images at the bounds of the box."""
    rng = np.random.default_rng(seed)
    shape = (2, 3, 3)
    model = Linear(rng.integers(-3, 4, (classes, *shape)) / 4, rng.normal(size=classes))  # ties between features
    x = (rng.integers(0, 5, (6, *shape)) / 4).astype(np.float32)
    goals = rng.integers(0, classes, 6)
    before = x.copy()
    found = jsma(model, x, goals, targeted=True, theta=theta, gamma=gamma)
    np.testing.assert_array_equal(found, referee.jsma(model, x.astype(float), goals, theta=theta, gamma=gamma))
    np.testing.assert_array_equal(x, before)
    assert found.dtype == np.float32


@pytest.mark.parametrize(("shape", "theta"), [((1, 8, 8), 1.0), ((1, 8, 8), -0.3), ((3, 8, 8), 0.5)])
def test_on_a_network_it_finds_what_the_referee_finds(shape, theta):
    model, x = cnn(shape), images(6, shape)
    y = labels(model, x)
    given = {"theta": theta, "gamma": 0.3}
    ours, theirs = (attack(model, x, y, "jsma", library=name, params=given) for name in ("sparring", "referee"))
    np.testing.assert_allclose(ours.images, theirs.images, atol=1e-6)
    assert (ours.images != x).any(axis=(1, 2, 3)).all()
    reached = ours.samples["pred_adv"] == (y + 1) % 10
    assert reached.any()
    pairs = 2 * int(0.3 * x[0].size / 2)
    assert (ours.samples["l0"] <= pairs).all()
    again = attack(model, x, y, "jsma", library="sparring", params=given)
    np.testing.assert_array_equal(ours.images, again.images)


def test_an_image_does_not_depend_on_its_batch():
    model, x = cnn(), images(7)
    goals = (labels(model, x) + 3) % 10
    whole = attack(model, x, labels(model, x), "jsma", library="sparring", targets=goals, gamma=0.4)
    parts = attack(model, x, labels(model, x), "jsma", library="sparring", targets=goals, gamma=0.4, batch_size=1)
    np.testing.assert_array_equal(whole.images, parts.images)
    assert whole.samples["success"].any()


def test_it_asks_for_the_images_that_go_on():
    """An image that is there already costs one pass; one that has no pair a forward and two backwards."""
    weights = np.zeros((2, 1, 2, 2))
    weights[0] += 1
    model = Linear(weights, np.array([0.0, -1.0]))  # to class 0 upwards; towards class 1 no value can be raised
    x = np.full((3, 1, 2, 2), 0.5, np.float32)
    there = attack(model, x, [1, 1, 1], "jsma", library="sparring", gamma=1.0)
    assert (there.forwards, there.backwards) == (3, 0)
    np.testing.assert_array_equal(there.images, x)
    stuck = attack(model, x, [0, 0, 0], "jsma", library="sparring", gamma=1.0)
    assert (stuck.forwards, stuck.backwards) == (3, 6)
    np.testing.assert_array_equal(stuck.images, x)
    no_turn = attack(model, x, [0, 0, 0], "jsma", library="sparring", gamma=0.4)  # less than a pair of the four values
    assert (no_turn.forwards, no_turn.backwards) == (0, 0)
    assert not len(jsma(model, x[:0], np.zeros(0, int), targeted=True, theta=1.0, gamma=1.0))


def test_by_its_name_it_leaves_the_class_for_the_next_one():
    model, x = cnn(), images(4)
    y = labels(model, x)
    canonical = attack(model, x, y, "jsma", library="sparring", gamma=0.4)
    by_its_class = attack(model, x, y, "sparring:jsma", params={"theta": 1.0, "gamma": 0.4})
    np.testing.assert_array_equal(canonical.images, by_its_class.images)
    assert (canonical.samples["pred_adv"] == (y + 1) % 10).any()
    assert find("jsma").aims
    with pytest.raises(NotSupported, match="gradients"):
        attack(OutputsOnly(model), x, y, "jsma", library="sparring")
