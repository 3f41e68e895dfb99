"""The raw door: every class of every library is listed, and what claims to run runs."""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import Any

import numpy as np
import pytest
import torch
from models_for_tests import cnn, images, labels

from sparring.adapters.attacks.library import RawAttack, load_library
from sparring.adapters.attacks.run import attack
from sparring.adapters.errors import InputError, LibraryError, NotSupported
from sparring.adapters.frameworks.pytorch import TorchClassifier

LIBRARIES = ("art", "foolbox", "torchattacks")
LIGHT: dict[str, Any] = {
    "steps": 3,
    "max_iter": 3,
    "n_queries": 20,
    "restarts": 2,
    "max_iterations": 2,
    "popsize": 10,
    "binary_search_steps": 2,
    "n_restarts": 1,
    "nb_random_init": 1,
    "num_trial": 3,
    "sample_size": 4,
    "nb_steps": 3,
    "query_limit": 200,
    "directions": 20,
    "population": 4,
    "search_steps": 3,
    "repeats": 3,
    "num_rotations": 2,
    "num_translations": 2,
    "conjugate_sinkhorn_max_iter": 3,
    "projected_sinkhorn_max_iter": 3,
    "max_inner_iter": 2,
    "es": 1,
    "init_eval": 10,
    "max_eval": 20,
    "initial_gradient_eval_steps": 10,
    "th": 1,
    "m": 2,
    "N": 2,
}
"""Keywords that make any attack short, for whichever classes have them."""
SPECIAL: dict[str, dict[str, Any]] = {
    "torchattacks:EADL1": {"max_iterations": 10},  # 3.5.1 divides by a tenth of it
    "torchattacks:EADEN": {"max_iterations": 10},
    "art:GeoDA": {"max_iter": 500},  # 1.20.1 needs 250 at least
    "art:CarliniL0Method": {"binary_search_steps": 1},
    "art:CarliniLInfMethod": {"largest_const": 1e-4},
    "art:ShadowAttack": {"batch_size": 4},
    "art:Wasserstein": {"regularization": 1000.0},  # on eight pixels its own 3000 overflows
    "art:SignOPTAttack": {"k": 10},
    "foolbox:L2CarliniWagnerAttack": {},
}
COLOURED = {"torchattacks:PIFGSM", "torchattacks:PIFGSMPP", "torchattacks:TIFGSM"}
COLOURED |= {"art:CompositeAdversarialAttackPyTorch"}
WANTS_TARGETS = {"foolbox:GenAttack", "art:TargetedUniversalPerturbation"}
MINUTES_TO_COMPILE = {"foolbox:L0BrendelBethgeAttack", "foolbox:L1BrendelBethgeAttack"}
MINUTES_TO_COMPILE |= {
    "foolbox:L2BrendelBethgeAttack",
    "foolbox:LinfinityBrendelBethgeAttack",
    "art:BrendelBethgeAttack",
}
OPTIONAL = dict.fromkeys(MINUTES_TO_COMPILE, "numba")
OPTIONAL |= {"art:CompositeAdversarialAttackPyTorch": "kornia"}

CLASSES = [(f"{name}:{key}", raw) for name in LIBRARIES for key, raw in load_library(name).raw().items()]
RUNNING = [pytest.param(name, raw, id=name) for name, raw in CLASSES if raw.unsupported is None and raw.alias is None]


def light(name: str, raw: RawAttack) -> dict[str, Any]:
    kwargs = {key: value for key, value in LIGHT.items() if key in raw.signature.parameters}
    if name.startswith("foolbox:") and _has_a_budget(raw):
        kwargs["eps"] = 0.5
    return {**kwargs, **SPECIAL.get(name, {})}


def _has_a_budget(raw: RawAttack) -> bool:
    import foolbox

    return issubclass(getattr(foolbox.attacks, raw.name), foolbox.attacks.base.FixedEpsilonAttack)


def go(name: str, raw: RawAttack, shape: Any = None, targeted: bool = False, **more: Any) -> Any:
    classifier = cnn(shape or ((3, 16, 16) if name in COLOURED else (1, 8, 8)))
    x = images(3, classifier.input_shape)
    targeted = targeted or name in WANTS_TARGETS
    return attack(classifier, x, labels(classifier, x), name, targeted=targeted, **{**light(name, raw), **more})


@pytest.mark.parametrize(("name", "raw"), RUNNING)
def test_every_class_that_claims_to_run_runs_on_a_torch_model(name: str, raw: RawAttack, capfd: Any) -> None:
    package = OPTIONAL.get(name)
    if package and importlib.util.find_spec(package) is None:
        with pytest.raises(LibraryError, match=rf"needs the package {package}.*pip install 'sparring\[extras\]'"):
            go(name, raw)
        return
    if name in MINUTES_TO_COMPILE and "SPARRING_SLOW_TESTS" not in os.environ:
        pytest.skip("numba compiles for minutes: set SPARRING_SLOW_TESTS")
    if "torch" not in raw.runs_on:
        with pytest.raises(NotSupported, match="runs on keras-tensorflow only"):
            go(name, raw)
        return
    if name == "foolbox:BinarizationRefinementAttack":  # has a test of its own
        return
    result = go(name, raw)
    assert result.images.shape == (3, *((3, 16, 16) if name in COLOURED else (1, 8, 8)))
    assert result.images.dtype == np.float32
    assert (result.forwards > 0) or raw.needs == "nothing"
    assert (result.backwards > 0) == (raw.needs == "gradients")
    printed = capfd.readouterr()
    assert printed.out == ""
    assert "it/s" not in printed.err


@pytest.mark.skipif(importlib.util.find_spec("multiprocess") is not None, reason="multiprocess is installed")
def test_only_several_processes_of_autoattack_need_multiprocess() -> None:
    """ART 1.20 imports it in every run of AutoAttack."""
    classifier = cnn()
    x = images(2, classifier.input_shape)
    y = labels(classifier, x)
    assert attack(classifier, x, y, "art:AutoAttack", eps=0.3).samples["success"].all()
    with pytest.raises(LibraryError, match=r"needs the package multiprocess.*pip install 'sparring\[extras\]'"):
        attack(classifier, x, y, "art:AutoAttack", eps=0.3, parallel_pool_size=2)
    assert "multiprocess" not in sys.modules


@pytest.mark.parametrize(("name", "raw"), [pair for pair in RUNNING if pair.values[1].targeted])  # type: ignore[union-attr]
def test_every_class_that_claims_to_take_targets_takes_them(name: str, raw: RawAttack) -> None:
    if "torch" not in raw.runs_on or name in OPTIONAL or name == "foolbox:BinarizationRefinementAttack":
        return
    assert go(name, raw, targeted=True).images.shape[0] == 3


@pytest.mark.parametrize(("name", "raw"), [pair for pair in RUNNING if not pair.values[1].targeted])  # type: ignore[union-attr]
def test_a_class_without_a_targeted_version_says_so(name: str, raw: RawAttack) -> None:
    with pytest.raises(NotSupported, match="has no targeted version"):
        go(name, raw, targeted=True)


@pytest.mark.parametrize("library", LIBRARIES)
def test_no_class_is_left_out(library: str) -> None:
    listed = load_library(library).raw()
    if library == "torchattacks":
        import torchattacks

        assert set(listed) == set(torchattacks.__all__)
    elif library == "foolbox":
        import foolbox

        assert {"PGD", "LinfPGD", "L2CarliniWagnerAttack", "GenAttack", "L0FMNAttack"} <= set(listed)
        assert listed["PGD"].alias == "LinfProjectedGradientDescentAttack"
        assert listed["LinfProjectedGradientDescentAttack"].alias is None
        public = {name for name, value in vars(foolbox.attacks).items() if isinstance(value, type)}
        assert public - set(listed) == {"Attack"}
    else:
        from art.attacks import evasion

        public = {name for name, value in vars(evasion).items() if isinstance(value, type)}
        assert set(listed) == public | {"BrendelBethgeAttack"}


def test_what_can_not_attack_an_image_classifier_says_why() -> None:
    listed = load_library("art").raw()
    assert "object detectors" in str(listed["DPatch"].unsupported)
    assert "speech" in str(listed["ImperceptibleASRPyTorch"].unsupported)
    assert "decision trees" in str(listed["DecisionTreeAttack"].unsupported)
    assert all(raw.unsupported is None or len(raw.unsupported) > 10 for _, raw in CLASSES)


def test_a_wrong_keyword_is_named_before_anything_runs() -> None:
    with pytest.raises(InputError, match=r"unknown parameter 'epsilon'\. Did you mean 'eps'"):
        go("torchattacks:VNIFGSM", load_library("torchattacks").raw()["VNIFGSM"], epsilon=0.1)


@pytest.mark.parametrize("name", ["PIFGSM", "PIFGSMPP", "TIFGSM"])
def test_attacks_that_torchattacks_wrote_for_color_fail_on_gray(name: str) -> None:
    """torchattacks 3.5.1 convolves with a kernel of three channels, whatever the image has."""
    with pytest.raises(LibraryError, match=f"torchattacks's {name} raised RuntimeError"):
        go(f"torchattacks:{name}", load_library("torchattacks").raw()[name], shape=(1, 8, 8))


def test_the_binarization_refinement_wants_a_model_that_binarises() -> None:
    class Threshold(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x > 0.5).float()

    torch.manual_seed(0)
    net = torch.nn.Sequential(Threshold(), torch.nn.Flatten(), torch.nn.Linear(64, 4))
    classifier = TorchClassifier(net, input_shape=(1, 8, 8), device="cpu")
    x = images(4)
    y = labels(classifier, x)
    refined = attack(classifier, x, y, "foolbox:BinarizationRefinementAttack", included_in="lower")
    assert refined.samples["success"].all()
    with pytest.raises(LibraryError, match="threshold does not match"):
        go("foolbox:BinarizationRefinementAttack", load_library("foolbox").raw()["BinarizationRefinementAttack"])


def test_square_in_l2_has_no_start_on_images_of_less_than_ten_pixels_in_art() -> None:
    """ART 1.20.1 halves a fifth of the height, and divides by the length of nothing: it asks about images of NaN, gets
    NaN from a network and from our estimator alike, and does not take them."""
    classifier = cnn()
    x = images(4)
    light: dict[str, Any] = {"norm": "l2", "library": "art", "eps": 0.5, "queries": 5}
    native, bridged = (
        attack(classifier, x, labels(classifier, x), "square", route=route, **light)
        for route in ("native", "bridged")  # type: ignore[arg-type]
    )
    assert np.array_equal(native.images, bridged.images)
    assert np.isfinite(native.images).all()
    assert (native.forwards, native.backwards) == (bridged.forwards + len(x), 0)  # ours need not be asked
