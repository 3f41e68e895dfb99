"""sparring's JSMA against the referee's, in batches and in float32, and against what its quicker reading should take."""

from __future__ import annotations

import numpy as np
import pytest
from closed_forms import Linear
from hypothesis import given, settings
from hypothesis import strategies as st
from models_for_tests import OutputsOnly, cnn, images, labels

from sparring.adapters.attacks.catalogue import find
from sparring.adapters.attacks.run import attack
from sparring.adapters.errors import InputError, NotSupported
from sparring.adapters.libraries.own.jsma import jsma
from sparring.adapters.libraries.referee import attacks as referee

SOURCE = {"outputs": "logits", "pairs": 1}


@settings(max_examples=40, deadline=None)
@given(
    theta=st.sampled_from([1.0, 0.25, -1.0, -0.25]),
    gamma=st.floats(0.01, 1),
    classes=st.integers(2, 5),
    seed=st.integers(0, 10**6),
)
def test_it_takes_the_referee_s_pairs(theta, gamma, classes, seed):
    """On derivatives that are the same in both precisions, with images at the bounds of the box."""
    rng = np.random.default_rng(seed)
    shape = (2, 3, 3)
    model = Linear(rng.integers(-3, 4, (classes, *shape)) / 4, rng.normal(size=classes))  # ties between features
    x = (rng.integers(0, 5, (6, *shape)) / 4).astype(np.float32)
    goals = rng.integers(0, classes, 6)
    before = x.copy()
    x_adv = jsma(model, x, goals, targeted=True, theta=theta, gamma=gamma, **SOURCE)
    np.testing.assert_array_equal(x_adv, referee.jsma(model, x.astype(float), goals, theta=theta, gamma=gamma))
    np.testing.assert_array_equal(x, before)
    assert x_adv.dtype == np.float32


@pytest.mark.parametrize(("shape", "theta"), [((1, 8, 8), 1.0), ((1, 8, 8), -0.3), ((3, 8, 8), 0.5)])
def test_on_a_network_it_finds_what_the_referee_finds(shape, theta):
    model, x = cnn(shape), images(6, shape)
    y = labels(model, x)
    parameters = {"theta": theta, "gamma": 0.3}
    ours = attack(model, x, y, "sparring:jsma", params={**parameters, **SOURCE})
    theirs = attack(model, x, y, "jsma", library="referee", params=parameters)
    np.testing.assert_allclose(ours.images, theirs.images, atol=1e-6)
    assert (ours.images != x).any(axis=(1, 2, 3)).all()
    reached = ours.samples["pred_adv"] == (y + 1) % 10
    assert reached.any()
    pairs = 2 * int(0.3 * x[0].size / 2)
    assert (ours.samples["l0"] <= pairs).all()
    assert ours.backwards <= 2 * ours.forwards  # one pass forwards does for logits and both gradients


def softmax(z):
    powers = np.exp(z - z.max())
    return powers / powers.sum()


def slowly(model, image, goal, theta, turns, pairs):
    """With the probabilities' own derivatives, pair by pair among all pairs: the best, then the best of the others."""
    jacobian = model.weights.reshape(model.classes, -1)
    x_adv = image.astype(float).ravel()
    for _ in range(turns):
        z = model.logits(x_adv.reshape(1, *image.shape).astype(np.float32))[0].astype(float)
        if z.argmax() == goal:
            break
        p = softmax(z)
        alpha = p[goal] * (jacobian[goal] - p @ jacobian)
        free = [i for i, value in enumerate(x_adv) if (value < 1 if theta > 0 else value > 0)]
        pairs_taken = []
        for _ in range(pairs):
            remaining = [i for i in free if i not in pairs_taken]
            scores = {
                (i, j): (alpha[i] + alpha[j]) ** 2
                for i in remaining
                for j in remaining
                if i < j and np.sign(theta) * (alpha[i] + alpha[j]) > 0
            }
            pairs_taken += max(scores, key=scores.get) if scores else ()
        if not pairs_taken:
            break
        x_adv[pairs_taken] = np.clip(x_adv[pairs_taken] + theta, 0, 1)
    return x_adv.reshape(image.shape)


@settings(max_examples=40, deadline=None)
@given(
    theta=st.sampled_from([1.0, 0.25, -1.0, -0.25]),
    pairs=st.integers(1, 3),
    classes=st.integers(2, 5),
    seed=st.integers(0, 10**6),
)
def test_of_probabilities_it_takes_the_pairs_with_the_largest_product(theta, pairs, classes, seed):
    rng = np.random.default_rng(seed)
    shape = (2, 4, 6)
    model = Linear(rng.normal(0, 0.3, (classes, *shape)), rng.normal(size=classes))
    x = (rng.integers(0, 5, (4, *shape)) / 4).astype(np.float32)
    goals = rng.integers(0, classes, 4)
    x_adv = jsma(model, x, goals, targeted=True, theta=theta, gamma=1.0, outputs="probabilities", pairs=pairs)
    turns = 24 // pairs  # of 48 values
    expected = [slowly(model, image, goal, theta, turns, pairs) for image, goal in zip(x, goals, strict=True)]
    np.testing.assert_allclose(x_adv, np.stack(expected), atol=1e-6)


def test_a_saturated_network_has_derivatives_all_the_same():
    """Of probabilities that are 0 and 1 in float64: distillation must not look like a defense."""
    weights = np.zeros((3, 1, 4, 4))
    weights[1, 0, :2] = 4000
    model = Linear(weights, np.array([2000.0, 0.0, -9000.0]))
    x = np.full((2, 1, 4, 4), 0.5, np.float32)
    result = attack(model, x, [0, 0], "jsma", library="sparring", gamma=1.0)
    assert (result.samples["pred_adv"] == 1).all()


def test_gamma_bounds_the_pairs_and_small_ones_leave_turns():
    model, x = cnn((3, 8, 8)), images(6, (3, 8, 8))
    y = labels(model, x)
    for gamma, most in ((0.02, 1), (0.1, 9), (0.26, 24)):
        result = attack(model, x, y, "jsma", library="sparring", gamma=gamma)
        assert (result.samples["l0"] <= 2 * most).all()
        assert (result.samples["l0"] > 2 * most - 6).any() or result.samples["success"].all()
    assert "derivatives of the probabilities" in result.notes[0]


def test_an_image_does_not_depend_on_its_batch():
    model, x = cnn(), images(7)
    goals = (labels(model, x) + 3) % 10
    whole = attack(model, x, labels(model, x), "jsma", library="sparring", targets=goals, gamma=0.4)
    parts = attack(model, x, labels(model, x), "jsma", library="sparring", targets=goals, gamma=0.4, batch_size=1)
    np.testing.assert_array_equal(whole.images, parts.images)
    assert whole.samples["success"].any()


def test_it_asks_for_the_images_that_go_on():
    """An image that is there already costs one pass; one that has no pair one each way."""
    weights = np.zeros((2, 1, 2, 2))
    weights[0] += 1
    model = Linear(weights, np.array([0.0, -1.0]))  # to class 0 upwards; towards class 1 no value can be raised
    x = np.full((3, 1, 2, 2), 0.5, np.float32)
    complete = attack(model, x, [1, 1, 1], "jsma", library="sparring", gamma=1.0)
    assert (complete.forwards, complete.backwards) == (3, 0)
    np.testing.assert_array_equal(complete.images, x)
    stuck = attack(model, x, [0, 0, 0], "jsma", library="sparring", gamma=1.0)
    assert (stuck.forwards, stuck.backwards) == (3, 3)
    np.testing.assert_array_equal(stuck.images, x)
    no_turn = attack(model, x, [0, 0, 0], "jsma", library="sparring", gamma=0.4)  # less than a pair of the four values
    assert (no_turn.forwards, no_turn.backwards) == (0, 0)
    assert not len(jsma(model, x[:0], np.zeros(0, int), targeted=True, theta=1.0, gamma=1.0))


def test_by_its_name_it_leaves_the_class_for_the_next_one():
    model, x = cnn(), images(4)
    y = labels(model, x)
    canonical = attack(model, x, y, "jsma", library="sparring", gamma=0.4)
    by_its_class = attack(model, x, y, "sparring:jsma", params={"theta": 1.0, "gamma": 0.4, "pairs": 3})
    np.testing.assert_array_equal(canonical.images, by_its_class.images)
    assert (canonical.samples["pred_adv"] == (y + 1) % 10).any()
    assert find("jsma").aims
    with pytest.raises(InputError, match="outputs"):
        attack(model, x, y, "sparring:jsma", params={"theta": 1.0, "gamma": 0.4, "outputs": "scores"})
    with pytest.raises(NotSupported, match="gradients"):
        attack(OutputsOnly(model), x, y, "jsma", library="sparring")
