"""Defended classifiers keep the protocol's laws on every framework; what is random follows from seed and image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from models_for_tests import OutputsOnly, cnn, images, keras_cnn, labels

from sparring.adapters import attack
from sparring.adapters.conformance.classifiers import (
    CLASSIFIER_CHECKS,
    DIFFERENTIABLE_CHECKS,
    check_vjp_is_the_derivative,
    checks_for,
)
from sparring.adapters.errors import InputError, NotSupported
from sparring.adapters.protocol import Differentiable
from sparring.adapters.wrappers import random_transforms as draws
from sparring.adapters.wrappers import transforms as plain
from sparring.adapters.wrappers.ensemble import ensemble
from sparring.adapters.wrappers.gradient_noise import averaged, unaware
from sparring.adapters.wrappers.transformed import Defended, DefendedDifferentiable, coins, defended

EXACT = {
    "gaussian-blur": plain.gaussian_blur(1),
    "mean-smoothing": plain.mean_smoothing(2),
    "median-smoothing": plain.median_smoothing(3),
}
STRAIGHT = {"bit-depth": plain.bit_depth(32), "jpeg": plain.jpeg(75)}
RANDOM = {
    "random-noise": draws.random_noise(0.1),
    "random-rotation": draws.random_rotation(15),
    "random-shift": draws.random_shift(0.1),
    "random-resize-pad": draws.random_resize_pad(0.8),
    "randomization": draws.randomization(15, 0.1, 0.2, 0.05),
    "total-variation": draws.total_variation(0.03, 0.5, 20),
}
HOW = {
    **{name: (one, "exact", 1) for name, one in EXACT.items()},
    **{name: (one, "straight-through", 1) for name, one in STRAIGHT.items()},
    **{name: (one, "expectation", 2) for name, one in RANDOM.items()},
}


def behind(inner, name: str, seed: int = 0, count: int | None = None) -> Defended:
    transform, gradients, usual = HOW[name]
    return defended(inner, transform, seed=seed, gradients=gradients, draws=count or usual)


def onnx_cnn():
    """A file of ``cnn()``, with the gradients that sparring gives it."""
    import tempfile
    from pathlib import Path

    from sparring.adapters.onnx.classifier import OnnxClassifier

    path = Path(tempfile.mkdtemp()) / "cnn.onnx"
    example = torch.zeros(1, 1, 8, 8)
    torch.onnx.export(
        cnn().network, (example,), str(path), dynamo=False, input_names=["x"], dynamic_axes={"x": {0: "n"}}
    )
    return OnnxClassifier(path)


FRAMEWORKS = {"torch": cnn, "keras": keras_cnn, "onnx": onnx_cnn}


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_laws(framework) -> None:
    """Every wrapper on torch; two on the others, for what differs is the classifier alone."""
    inner = FRAMEWORKS[framework]()
    names = HOW if framework == "torch" else ("gaussian-blur", "random-noise")
    for name in names:
        made = behind(inner, name)
        assert made.framework == "defended"
        assert isinstance(made, Differentiable)
        checks = checks_for(made)
        assert (check_vjp_is_the_derivative in checks) == (name in EXACT)
        assert set(checks) >= set(DIFFERENTIABLE_CHECKS) - {check_vjp_is_the_derivative}
        for check in checks:
            check(made)


def test_laws_of_noisy_gradients() -> None:
    for made in (averaged(cnn(), seed=0, eps=0.2, draws=4), unaware(cnn(), seed=0, eps=0.2, draws=4)):
        for check in checks_for(made):
            check(made)
        np.testing.assert_array_equal(made.logits(images()), cnn().logits(images()))


def test_laws_of_a_chain() -> None:
    made = behind(behind(behind(cnn(), "jpeg"), "random-noise"), "gaussian-blur")
    for check in checks_for(made):
        if check is not check_vjp_is_the_derivative:  # the outermost is exact, what is inside isn't
            check(made)


def test_the_first_of_a_chain_is_the_first_that_an_image_comes_to() -> None:
    x = images()
    squeezed, _ = plain.bit_depth(3)(x, coins(0, x, 0))
    blurred, _ = plain.gaussian_blur(1)(squeezed, coins(0, x, 0))
    made = defended(defended(cnn(), plain.gaussian_blur(1)), plain.bit_depth(3), gradients="straight-through")
    np.testing.assert_array_equal(made.logits(x), cnn().logits(blurred))


def test_an_exact_gradient_is_torchs_through_the_filter() -> None:
    x, cotangent = images(4), np.random.default_rng(0).normal(size=(4, 10)).astype(np.float32)
    filtering = torch.from_numpy(plain._filtering("gaussian_filter1d", 8, 1))
    inputs = torch.from_numpy(x).requires_grad_()
    scores = cnn().network(filtering @ inputs @ filtering.T)
    (expected,) = torch.autograd.grad((scores * torch.from_numpy(cotangent)).sum(), inputs)
    made = defended(cnn(), plain.gaussian_blur(1))
    np.testing.assert_allclose(made.vjp(x, cotangent), expected.numpy(), atol=1e-6)
    straight = defended(cnn(), plain.gaussian_blur(1), gradients="straight-through")
    blurred, _ = plain.gaussian_blur(1)(x, coins(0, x, 0))
    np.testing.assert_array_equal(straight.vjp(x, cotangent), cnn().vjp(blurred, cotangent))


def test_an_expectation_is_the_mean_over_draws_none_of_which_is_the_deployed_one() -> None:
    x, cotangent = images(3), np.random.default_rng(0).normal(size=(3, 10)).astype(np.float32)
    transform = draws.random_noise(0.2)
    made = defended(cnn(), transform, seed=7, gradients="expectation", draws=4)
    each = []
    for draw in range(5):
        moved, pull = transform(x, coins(7, x, draw))
        each.append(pull(cnn().vjp(moved, cotangent)))
    np.testing.assert_allclose(made.vjp(x, cotangent), np.mean(each[1:], axis=0), atol=1e-6)
    np.testing.assert_array_equal(made.logits(x), cnn().logits(transform(x, coins(7, x, 0))[0]))


def test_more_draws_come_nearer_to_the_expectation() -> None:
    x, cotangent = images(2), np.ones((2, 10), np.float32) * np.eye(10, dtype=np.float32)[0]
    expected = behind(cnn(), "random-noise", seed=1, count=1000).vjp(x, cotangent)
    off = [np.abs(behind(cnn(), "random-noise", count=n).vjp(x, cotangent) - expected).mean() for n in (1, 10, 100)]
    assert off[0] > 2 * off[1] > 4 * off[2]


@pytest.mark.parametrize("name", RANDOM)
def test_draws_follow_from_seed_and_image(name) -> None:
    x = images()
    logits = behind(cnn(), name).logits(x)
    np.testing.assert_array_equal(behind(cnn(), name).logits(x), logits)
    assert np.abs(behind(cnn(), name, seed=1).logits(x) - logits).max() > 1e-3
    # an image that differs in one bit is another draw: the difference is far beyond that bit's
    near = x.copy()
    near[0, 0, 0, 0] = np.nextafter(near[0, 0, 0, 0], np.float32(1))
    assert np.abs(behind(cnn(), name).logits(near)[0] - logits[0]).max() > 1e-3
    np.testing.assert_array_equal(behind(cnn(), name).logits(near)[1:], logits[1:])


def test_zero_is_zero_whatever_its_sign() -> None:
    x = np.zeros((1, 1, 8, 8), np.float32)
    made = behind(cnn(), "random-noise")
    np.testing.assert_array_equal(made.logits(x), made.logits(-x))


def test_global_generators_are_left_alone() -> None:
    states = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    made = behind(cnn(), "randomization")
    made.vjp(images(), np.ones((8, 10), np.float32))
    np.testing.assert_array_equal(states[0], np.random.get_state()[1])  # noqa: NPY002
    assert torch.equal(states[1], torch.get_rng_state())


def test_without_gradients_of_the_classifier_or_through_the_defense_there_are_none() -> None:
    none = defended(cnn(), plain.jpeg(50), gradients="none")
    assert type(none) is Defended
    assert checks_for(none) == CLASSIFIER_CHECKS
    with pytest.raises(NotSupported, match="pgd needs gradients, and none pass through the defense"):
        attack(none, images(2), labels(none, images(2)), "pgd", library="foolbox", eps=0.1)
    blind = behind(OutputsOnly(cnn()), "gaussian-blur")
    assert not isinstance(blind, Differentiable)
    with pytest.raises(NotSupported, match="pgd needs gradients, and a OutputsOnly gives logits only"):
        attack(blind, images(2), labels(blind, images(2)), "pgd", library="foolbox", eps=0.1)
    voted = behind(ensemble([cnn(), cnn(seed=1)], "vote"), "gaussian-blur")
    with pytest.raises(NotSupported, match="square needs logits, and a majority vote only decides"):
        attack(voted, images(2), labels(voted, images(2)), "square", library="torchattacks", eps=0.1)
    assert averaged(OutputsOnly(cnn()), seed=0, eps=1, draws=1).framework == "onnx"


def test_every_library_attacks_a_defended_classifier() -> None:
    made = behind(cnn(), "random-noise")
    x = images(6)
    y = labels(made, x)
    for library in ("art", "foolbox", "torchattacks"):
        found = attack(made, x, y, "pgd", library=library, eps=0.15, steps=10, seed=0)
        assert found.route == "bridged"
        assert found.samples["success"].mean() > 0.6
        again = attack(made, x, y, "pgd", library=library, eps=0.15, steps=10, seed=0)
        np.testing.assert_array_equal(found.images, again.images)


def test_noise_on_gradients_has_the_deviation_asked_for_and_a_mean_of_draws_has_less() -> None:
    x, cotangent = images(64), np.repeat(np.eye(10, dtype=np.float32)[3][None], 64, axis=0)
    clean = cnn().vjp(x, cotangent)
    once = unaware(cnn(), seed=0, eps=0.5, draws=25).vjp(x, cotangent) - clean
    meant = averaged(cnn(), seed=0, eps=0.5, draws=25).vjp(x, cotangent) - clean
    assert once.std() == pytest.approx(0.5, rel=0.03)
    assert meant.std() == pytest.approx(0.1, rel=0.03)
    assert abs(np.corrcoef(once.ravel(), meant.ravel())[0, 1]) < 0.05
    # of another image it is other noise, and of another logit
    assert abs(np.corrcoef(once[0].ravel(), once[1].ravel())[0, 1]) < 0.5
    other = unaware(cnn(), seed=0, eps=0.5, draws=1)
    fourth = np.repeat(np.eye(10, dtype=np.float32)[4][None], 64, axis=0)
    noise = other.vjp(x, fourth) - cnn().vjp(x, fourth)
    assert abs(np.corrcoef(once.ravel(), noise.ravel())[0, 1]) < 0.05


def test_an_unknown_way_of_gradients_is_refused() -> None:
    with pytest.raises(InputError, match="gradients must be one of exact, straight-through, expectation, none"):
        defended(cnn(), plain.jpeg(50), gradients="exakt")
    assert type(defended(cnn(), plain.gaussian_blur(1))) is DefendedDifferentiable
