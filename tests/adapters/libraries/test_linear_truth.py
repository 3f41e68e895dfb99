"""On a linear classifier every answer is known: the nearest adversarial point is on the nearest hyperplane."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models_for_tests import labels, linear

from sparring.adapters.attacks.run import attack

LIBRARIES = ("art", "foolbox", "torchattacks")
every_library = pytest.mark.parametrize("library", LIBRARIES)
every_route = pytest.mark.parametrize("route", ["native", "bridged"])
two_and_more_classes = pytest.mark.parametrize("classes", [2, 6])


def problem(classes: int, n: int = 12) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray]:
    """A classifier, its weights, and images that it is right about, far enough from the border for a step to be small."""
    classifier, weights = linear(classes)
    y = np.arange(n) % classes
    noise = np.random.default_rng(1).uniform(-0.1, 0.1, (n, *classifier.input_shape))
    x = (0.5 + 0.1 * np.sign(weights[y]).reshape(noise.shape) + noise).astype(np.float32)
    assert (labels(classifier, x) == y).all()
    return classifier, weights.astype(np.float64), x, y


def true_distances(weights: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """To the nearest hyperplane between the own class and another, (N,)."""
    centered = x.reshape(len(x), -1).astype(np.float64) - 0.5
    away = weights[None] - weights[y][:, None]
    margins, lengths = -(away @ centered[:, :, None])[:, :, 0], np.linalg.norm(away, axis=2)
    return np.min(np.where(lengths > 0, margins / np.where(lengths > 0, lengths, 1), np.inf), axis=1)


@every_library
@every_route
@two_and_more_classes
def test_deepfool_finds_the_true_distance(library: str, route: Any, classes: int) -> None:
    classifier, weights, x, y = problem(classes)
    result = attack(classifier, x, y, "deepfool", library=library, route=route, overshoot=0.02)
    truth = true_distances(weights, x, y)
    assert result.samples["success"].all()
    assert (result.samples["l2"] >= truth * 0.999).all()
    further = 1e-4 if library == "foolbox" else 0  # Foolbox 3.3.4 adds that to every distance
    assert result.samples["l2"] == pytest.approx((truth + further) * 1.02, rel=0.01)


@every_library
@every_route
@two_and_more_classes
def test_cw_finds_the_true_distance(library: str, route: Any, classes: int) -> None:
    classifier, weights, x, y = problem(classes)
    # ART's line search gets stuck at the kink of the loss, the sooner the longer its steps
    settings = {"steps": 60, "learning_rate": 0.005} if library == "art" else {"steps": 300}
    result = attack(classifier, x, y, "cw", library=library, route=route, **settings)
    truth = true_distances(weights, x, y)
    assert result.samples["success"].all()
    assert (result.samples["l2"] >= truth * 0.999).all()
    assert result.samples["l2"] == pytest.approx(truth, rel=0.08 if library == "art" else 0.02)


def test_torchattacks_own_cw_misreads_the_margin_of_negative_logits() -> None:
    """torchattacks 3.5.1 masks the own logit by multiplying: where all others are negative, the largest is that 0."""
    classifier, _, x, y = problem(2)
    own = attack(classifier, x, y, "torchattacks:CW", steps=300, c=1)
    canonical = attack(classifier, x, y, "cw", library="torchattacks", steps=300)
    assert own.samples["success"].mean() < 1
    assert canonical.samples["success"].all()


@every_library
@every_route
@two_and_more_classes
@pytest.mark.parametrize("eps", [0.02, 0.05, 0.1, 0.15])
def test_fgsm_does_exactly_what_the_weights_imply(library: str, route: Any, classes: int, eps: float) -> None:
    classifier, weights, x, y = problem(classes, 40)
    centered = x.reshape(len(x), -1).astype(np.float64) - 0.5
    logits = centered @ weights.T
    probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    gradient = probabilities @ weights - weights[y]
    still_right = ((centered + eps * np.sign(gradient)) @ weights.T).argmax(axis=1) == y
    result = attack(classifier, x, y, "fgsm", library=library, route=route, eps=eps)
    assert (~result.samples["success"] == still_right).all()
    assert result.samples["linf"].max() == pytest.approx(eps, abs=1e-6)


@every_library
@every_route
def test_between_two_classes_pgd_ends_where_fgsm_does(library: str, route: Any) -> None:
    """The gradient's sign is the same everywhere, so that the corner of the cube is the worst point."""
    classifier, _, x, y = problem(2)
    one = attack(classifier, x, y, "fgsm", library=library, route=route, eps=0.05).images
    many = attack(classifier, x, y, "pgd", library=library, route=route, eps=0.05, steps=10, random_start=False).images
    assert np.abs(one - many).max() <= 1e-6


@every_library
@given(eps=st.floats(0.001, 1), seed=st.integers(0, 2**20))
@settings(max_examples=15, deadline=None)
def test_budget_and_box_are_kept_at_every_eps(library: str, eps: float, seed: int) -> None:
    classifier, _ = linear(3)
    x = np.random.default_rng(seed).random((3, *classifier.input_shape), dtype=np.float32)
    y = labels(classifier, x)
    for norm in ("linf", "l2"):
        result = attack(classifier, x, y, "pgd", norm=norm, library=library, eps=eps, steps=3, seed=seed)
        assert result.samples[norm].max() <= eps + 1e-6
        assert result.images.min() >= 0
        assert result.images.max() <= 1
        assert not [note for note in result.notes if "left the budget" in note]


@pytest.mark.parametrize("library", ["art", "foolbox"])
def test_hopskipjump_comes_near_the_true_distance(library: str) -> None:
    classifier, weights, x, y = problem(2, 4)
    result = attack(classifier, x, y, "hopskipjump", library=library, steps=20, max_evaluations=400)
    truth = true_distances(weights, x, y)
    assert result.samples["success"].all()
    assert (result.samples["l2"] >= truth * 0.999).all()
    assert np.median(result.samples["l2"] / truth) < 1.5
