"""ART's preprocessors and postprocessors around a classifier: its own numbers, its own parameters, the protocol's laws."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from models_for_tests import OutputsOnly, cnn, images, labels
from scipy.special import softmax

from sparring.adapters import attack
from sparring.adapters.conformance.classifiers import checks_for
from sparring.adapters.errors import InputError, NotSupported
from sparring.adapters.libraries.art.defenses import PINNED, UNSUPPORTED, build, postprocessed, raw
from sparring.models.defenses.art import catalogue
from sparring.models.defenses.catalogue import find, wrap_defended
from sparring.models.spec import DefenseSpec

PARAMETERS = {
    "Cutout": {"length": 4, "draws": 2},
    "FeatureSqueezing": {"bit_depth": 2},
    "GaussianAugmentation": {"sigma": 0.1, "draws": 2},
    "HighConfidence": {"cutoff": 0.15},
    "JpegCompression": {"quality": 40},
    "Rounded": {"decimals": 2},
    "TotalVarMin": {"max_iter": 2, "draws": 2},
}
RUN = [name for name, one in raw().items() if one.unsupported is None]


def behind(inner, name: str, seed: int = 0, **params):
    spec = DefenseSpec.model_validate({"defense": f"art:{name}", **PARAMETERS.get(name, {}), **params})
    return wrap_defended(inner, [spec], seed=seed)


def package_of(name: str) -> None:
    if name == "SpatialSmoothingPyTorch":
        pytest.importorskip("kornia", reason="ART smooths torch tensors with kornia: pip install 'sparring[extras]'")


def test_every_class_runs_or_says_why_not() -> None:
    from art.defences import postprocessor, preprocessor

    classes = {
        name
        for module in (preprocessor, postprocessor)
        for name, cls in vars(module).items()
        if inspect.isclass(cls) and name not in ("Preprocessor", "Postprocessor")
    }
    assert set(raw()) == classes == set(RUN) | set(UNSUPPORTED)
    assert set(catalogue()) >= classes
    for name in UNSUPPORTED:
        with pytest.raises(InputError, match=f"art:{name} can't defend an image classifier: "):
            find(f"art:{name}")


@pytest.mark.parametrize("name", RUN)
def test_every_keyword_of_arts_is_ones_own_or_pinned(name) -> None:
    """A release of ART that adds one fails here, unless it is a parameter by itself."""
    one = find(f"art:{name}")
    signature = inspect.signature(type(build_with_defaults(name)))
    ours = set(one.parameters) - {"gradients", "draws"}
    unpinned = set(signature.parameters) - ours - set(PINNED)
    assert unpinned == ({"ratio"} if name == "GaussianAugmentation" else set())
    for key in ours:
        default = signature.parameters[key].default
        assert default is inspect.Parameter.empty or one.parameters[key].default == default


def build_with_defaults(name: str):
    package_of(name)
    return build(name, {key: value for key, value in PARAMETERS.get(name, {}).items() if key != "draws"})


@pytest.mark.parametrize("name", RUN)
def test_laws(name) -> None:
    package_of(name)
    defense = behind(cnn(), name)
    assert defense.framework == "defended"
    for check in checks_for(defense):
        check(defense)
    if find(f"art:{name}").random:
        x = images()
        assert np.abs(defense.logits(x) - behind(cnn(), name, seed=1).logits(x)).max() > 1e-4


@pytest.mark.parametrize("name", ["FeatureSqueezing", "JpegCompression", "SpatialSmoothing"])
def test_images_are_arts_own(name) -> None:
    x = images(5, (3, 8, 8))
    inner = cnn((3, 8, 8))
    theirs, _ = build_with_defaults(name)(x.copy())
    expected = inner.logits(np.asarray(theirs, np.float32))
    np.testing.assert_array_equal(behind(inner, name).logits(x), expected)


def test_total_variation_gets_its_channels_last() -> None:
    """Channels of one value each don't vary in any image of theirs, however far apart they are."""
    x = np.broadcast_to(np.float32([0.1, 0.5, 0.9])[:, None, None], (1, 3, 8, 8))
    defense = behind(cnn((3, 8, 8)), "TotalVarMin", prob=0.3, lamb=0.5, max_iter=10)
    smoothed, _ = defense.transform(x, lambda row: np.random.default_rng(row))
    np.testing.assert_allclose(smoothed, x, atol=1e-4)


@pytest.mark.parametrize("name", ["GaussianNoise", "HighConfidence", "ReverseSigmoid", "Rounded"])
def test_predictions_are_arts_own(name) -> None:
    x = images(6)
    before = softmax(cnn().logits(x).astype(np.float64), axis=1)
    defense = behind(cnn(), name)
    after = np.exp(defense.logits(x).astype(np.float64))
    if name == "GaussianNoise":  # its noise is drawn for each image
        assert 0.05 < np.abs(after - before).mean() < 0.5
        return
    np.testing.assert_allclose(after, build_with_defaults(name)(before), atol=1e-6)


def test_a_gradient_passes_straight_through_a_postprocessor() -> None:
    x, cotangent = images(3), np.random.default_rng(0).normal(size=(3, 10)).astype(np.float32)
    shares = softmax(cnn().logits(x), axis=1)
    expected = cnn().vjp(x, (cotangent - shares * cotangent.sum(axis=1, keepdims=True)).astype(np.float32))
    np.testing.assert_allclose(behind(cnn(), "Rounded").vjp(x, cotangent), expected, atol=1e-5)


def test_class_labels_are_decisions_of_each_image() -> None:
    """ART's own marks every class that any image of the batch has."""
    x = images(8)
    defense = behind(cnn(), "ClassLabels")
    np.testing.assert_array_equal(defense.logits(x).argmax(axis=1), labels(cnn(), x))
    np.testing.assert_array_equal((defense.logits(x) == 0).sum(axis=1), 1)
    for name, what in (("pgd", "gradients"), ("square", "logits")):
        with pytest.raises(NotSupported, match=f"{name} needs {what}, and "):
            attack(defense, x, labels(cnn(), x), name, library="torchattacks", eps=0.1)
    short = {"steps": 2, "initial_evaluations": 10, "max_evaluations": 20}
    hopping = attack(defense, x, labels(cnn(), x), "hopskipjump", library="foolbox", params=short)
    assert hopping.samples["success"].all()


def test_numpys_global_generator_is_left_alone() -> None:
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    behind(cnn(), "GaussianAugmentation").logits(images())
    behind(cnn(), "GaussianNoise").logits(images())
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_without_gradients_there_are_none() -> None:
    for name in ("JpegCompression", "Rounded"):
        assert not hasattr(behind(cnn(), name, gradients="none"), "vjp")
        assert not hasattr(behind(OutputsOnly(cnn()), name), "vjp")


def test_values_that_art_refuses_are_the_users() -> None:
    with pytest.raises(InputError, match="ART refuses: Minimal value must be positive"):
        postprocessed(cnn(), name="HighConfidence", seed=0, cutoff=-1.0)
