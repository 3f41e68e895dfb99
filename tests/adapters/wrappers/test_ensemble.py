"""Ensembles against their definitions, with members of torch, Keras and a classifier that has only outputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from models_for_tests import OutputsOnly, cnn, images, keras_cnn, labels
from scipy.special import softmax
from torch.nn.functional import softmax as torch_softmax

from sparring.adapters import attack
from sparring.adapters.conformance.classifiers import CLASSIFIER_CHECKS, checks_for
from sparring.adapters.errors import InputError, NotSupported
from sparring.adapters.protocol import Differentiable
from sparring.adapters.wrappers.ensemble import DifferentiableEnsemble, Ensemble, ensemble


def members() -> list:
    return [cnn(), cnn(seed=1), keras_cnn()]


MEANS = ("probabilities", "logits")


@pytest.mark.parametrize("combine", [*MEANS, "vote"])
def test_laws(combine) -> None:
    made = ensemble(members(), combine)
    assert isinstance(made, Differentiable) == (combine in MEANS)
    for check in checks_for(made):
        check(made)


@pytest.mark.parametrize("combine", MEANS)
def test_without_gradients_of_one_member_there_are_none(combine) -> None:
    made = ensemble([cnn(), OutputsOnly(cnn(seed=1))], combine)
    assert type(made) is Ensemble
    assert checks_for(made) == CLASSIFIER_CHECKS
    with pytest.raises(NotSupported, match=r"pgd needs gradients, and a OutputsOnly gives logits only \(a member"):
        attack(made, images(2), labels(made, images(2)), "pgd", library="foolbox", eps=0.1)


def test_values_are_those_of_the_definition() -> None:
    x = images(16)
    each = np.stack([member.logits(x) for member in members()]).astype(np.float64)
    mean = softmax(each, axis=2).mean(axis=0)
    np.testing.assert_allclose(softmax(ensemble(members()).logits(x), axis=1), mean, atol=1e-6)
    np.testing.assert_allclose(ensemble(members(), "logits").logits(x), each.mean(axis=0), atol=1e-6)
    votes = np.stack([np.bincount(column, minlength=10) for column in each.argmax(axis=2).T])
    np.testing.assert_array_equal(ensemble(members(), "vote").logits(x), votes)


def test_a_tied_vote_goes_to_the_first_class() -> None:
    x = images(64)
    a, b = cnn(), cnn(seed=1)
    one, other = a.logits(x).argmax(axis=1), b.logits(x).argmax(axis=1)
    assert (one != other).any()
    np.testing.assert_array_equal(ensemble([a, b], "vote").logits(x).argmax(axis=1), np.minimum(one, other))


def test_the_gradient_is_that_of_torch_through_the_whole() -> None:
    a, b = cnn(), cnn(seed=1)
    x, cotangent = images(4), np.random.default_rng(0).normal(size=(4, 10)).astype(np.float32)
    images_, counter = torch.from_numpy(x).requires_grad_(), torch.from_numpy(cotangent)
    log_mean = torch.log((torch_softmax(a.network(images_), 1) + torch_softmax(b.network(images_), 1)) / 2)
    (expected,) = torch.autograd.grad((log_mean * counter).sum(), images_)
    np.testing.assert_allclose(ensemble([a, b]).vjp(x, cotangent), expected.numpy(), atol=2e-6)


def test_saturated_members_keep_their_gradient() -> None:
    """softmax gives exactly 0 in float32 beyond a margin of 104: the shares are taken in logarithms."""

    class Scaled:
        def __init__(self, inner, by) -> None:
            self.inner, self.by, self.input_shape, self.classes = (
                inner,
                np.float32(by),
                inner.input_shape,
                inner.classes,
            )

        def logits(self, x):
            return self.inner.logits(x) * self.by

        def vjp(self, x, cotangent):
            return self.inner.vjp(x, cotangent * self.by)

    made = ensemble([Scaled(cnn(), 300), Scaled(cnn(seed=1), 300)])
    x = images(8)
    assert (np.ptp(made.logits(x), axis=1) > 104).any()
    gradient = made.vjp(x, np.eye(10, dtype=np.float32)[made.logits(x).argmin(axis=1)])
    assert np.isfinite(made.logits(x)).all()
    assert np.isfinite(gradient).all()
    assert (np.abs(gradient).max(axis=(1, 2, 3)) > 0).all()


def test_an_ensemble_can_be_a_member() -> None:
    inner = ensemble([cnn(), cnn(seed=1)], "logits")
    made = ensemble([inner, inner, inner])
    assert isinstance(made, DifferentiableEnsemble)
    x = images()
    np.testing.assert_allclose(softmax(made.logits(x), axis=1), softmax(inner.logits(x), axis=1), atol=1e-6)


def test_an_attack_on_the_mean_beats_each_member_and_a_vote_is_attacked_by_decisions_alone() -> None:
    made, voted = ensemble([cnn(), cnn(seed=1)]), ensemble([cnn(), cnn(seed=1), cnn(seed=2)], "vote")
    assert type(voted) is Ensemble
    x = images(8)
    found = attack(made, x, labels(made, x), "pgd", library="torchattacks", eps=0.1, steps=10)
    assert found.samples["success"].all()
    with pytest.raises(NotSupported, match="pgd needs gradients, and a majority vote only decides"):
        attack(voted, x, labels(voted, x), "pgd", library="torchattacks", eps=0.1)
    with pytest.raises(NotSupported, match="square needs logits, and a majority vote only decides"):
        attack(voted, x, labels(voted, x), "square", library="torchattacks", eps=0.1)
    hopping = attack(
        voted,
        x,
        labels(voted, x),
        "hopskipjump",
        library="foolbox",
        steps=3,
        initial_evaluations=10,
        max_evaluations=20,
    )
    assert hopping.samples["success"].all()


def test_members_must_be_alike() -> None:
    with pytest.raises(InputError, match=r"the first takes \(1, 8, 8\) and gives 10, member 1 takes \(1, 6, 6\)"):
        ensemble([cnn(), cnn((1, 6, 6))])
    with pytest.raises(InputError, match=r"member 1 takes .* and gives 7"):
        ensemble([cnn(), cnn(classes=7)])
    with pytest.raises(InputError, match="combine must be one of probabilities, logits, vote, not 'mean'"):
        ensemble([cnn()], "mean")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="at least one member"):
        ensemble([])
