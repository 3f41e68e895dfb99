"""What torchattacks does that nobody would guess, and what the bridge makes of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from models_for_tests import OutputsOnly, cnn, images, keras_cnn, labels

from sparring.adapters.attacks.library import Call, load_library
from sparring.adapters.attacks.run import attack
from sparring.adapters.errors import NotSupported
from sparring.adapters.frameworks.pytorch import TorchClassifier
from sparring.adapters.protocol import Counter

X = images(5)
LIBRARY = load_library("torchattacks")


def test_cw_never_moves_pixels_at_the_border_of_the_box() -> None:
    """torchattacks 3.5.1 takes atanh(±1), which is infinite."""
    x = images(5)
    x[:, :, :4] = 0
    x[:, :, 4:6] = 1
    result = attack(cnn(), x, labels(cnn(), x), "cw", library="torchattacks", steps=30)
    assert (result.images[:, :, :6] == x[:, :, :6]).all()
    assert (result.images[:, :, 6:] != x[:, :, 6:]).any()
    assert any("never move" in note for note in result.notes)


def test_a_saturated_loss_leaves_an_image_alone_in_every_library() -> None:
    """Momentum divides the gradient by its length, which is 0 here."""
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    with torch.no_grad():
        net[1].weight.copy_(torch.eye(10, 64) * 1e5)  # type: ignore[operator]
        net[1].bias.zero_()  # type: ignore[operator]
    sure = TorchClassifier(net, input_shape=(1, 8, 8), device="cpu")
    for library in ("art", "foolbox", "torchattacks"):
        for name in ("fgsm", "bim", "mi-fgsm"):
            result = attack(sure, X, labels(sure, X), name, library=library, eps=0.001)
            assert (result.images == X).all()


def test_one_restart_is_all_it_has_and_the_row_says_so() -> None:
    y = labels(cnn(), X)
    assert attack(cnn(), X, y, "pgd", library="torchattacks", eps=0.1, steps=2).notes == ()
    assert attack(cnn(), X, y, "pgd", library="torchattacks", eps=0.1, steps=2, restarts=3).notes == (
        "restarts: it has one start only",
    )


def test_the_classes_are_the_model_s_and_not_ten() -> None:
    classifier = cnn(classes=5)  # APGDT's loss wants four
    y = labels(classifier, X)
    for name, kwargs in (("APGDT", {"steps": 3}), ("FAB", {"steps": 3, "multi_targeted": True}), ("AutoAttack", {})):
        light: dict[str, Any] = {**kwargs, "eps": 0.01}
        assert attack(classifier, X, y, f"torchattacks:{name}", **light).images.shape == X.shape


def test_pixle_that_keeps_the_best_at_once_takes_one_image_at_a_time() -> None:
    """torchattacks 3.5.1 asserts that it gets one image."""
    result = attack(
        cnn(), X, labels(cnn(), X), "pixle", library="torchattacks", update_each_iteration=True, iterations=3
    )
    assert result.images.shape == X.shape


def test_square_draws_from_the_cell_s_seed_and_not_from_its_own_0() -> None:
    y = labels(cnn(), X)
    calls = [attack(cnn(), X, y, "square", library="torchattacks", eps=0.1, queries=3, seed=s).call for s in (4, 5)]
    assert [call["kwargs"]["seed"] for call in calls] == [4, 5]


def test_the_model_is_as_it_was_afterwards() -> None:
    module = cnn().network
    module.train()
    before = {name: (p.requires_grad, p.grad) for name, p in module.named_parameters()}
    attack(cnn(), X, labels(cnn(), X), "pgd", library="torchattacks", eps=0.1, steps=2)
    assert module.training
    assert {name: (p.requires_grad, p.grad) for name, p in module.named_parameters()} == before
    module.eval()


@pytest.mark.parametrize(
    ("name", "light"),
    [("square", {"eps": 0.1, "queries": 5}), ("pixle", {"restarts": 1}), ("one-pixel", {"steps": 1, "population": 20})],
)
def test_black_box_attacks_run_without_gradients(name: str, light: dict[str, Any]) -> None:
    result = attack(OutputsOnly(cnn()), X, labels(cnn(), X), name, library="torchattacks", **light)  # type: ignore[arg-type]
    assert (result.route, result.backwards) == ("bridged", 0)


def test_gradients_that_are_not_there_are_not_supported() -> None:
    with (
        LIBRARY.session(OutputsOnly(cnn()), "bridged", Counter()) as run,
        pytest.raises(NotSupported, match="gradients"),
    ):  # type: ignore[arg-type]
        run(Call("FGSM", {"eps": 0.1}, X, labels(cnn(), X), False, None))


def test_there_is_no_native_route_to_tensorflow() -> None:
    with pytest.raises(NotSupported, match="it speaks torch"), LIBRARY.session(keras_cnn(), "native", Counter()):
        pass


RAW_ON_KERAS = ["FGSM", "VNIFGSM", "APGD", "FAB", "SPSA", "EADL1", "SparseFool", "OnePixel"]


@pytest.mark.parametrize("name", RAW_ON_KERAS)
def test_the_raw_door_leads_to_a_tensorflow_model(name: str) -> None:
    light = {"max_iterations": 10} if name == "EADL1" else {"steps": 2}
    kwargs = {key: value for key, value in light.items() if key in LIBRARY.raw()[name].signature.parameters}
    result = attack(keras_cnn(), X, labels(keras_cnn(), X), f"torchattacks:{name}", **kwargs)
    assert result.route == "bridged"
    assert result.images.shape == X.shape
    assert np.isfinite(result.images).all()


@pytest.mark.parametrize(
    "name",
    [
        "art:ElasticNet",
        "art:AutoProjectedGradientDescent",
        "art:ProjectedGradientDescentTensorFlowV2",
        "art:Wasserstein",
        "art:NewtonFool",
        "art:ZooAttack",
        "art:SimBA",
        "foolbox:DDNAttack",
        "foolbox:L2FMNAttack",
        "foolbox:GaussianBlurAttack",
        "foolbox:InversionAttack",
    ],
)
def test_so_do_those_of_the_others(name: str) -> None:
    library, _, cls = name.partition(":")
    light = {"steps": 2, "max_iter": 2, "nb_random_init": 1, "regularization": 100.0, "nb_parallel": 4}
    raw = load_library(library).raw()[cls]
    kwargs = {key: value for key, value in light.items() if key in raw.signature.parameters}
    result = attack(keras_cnn(), X, labels(keras_cnn(), X), name, **kwargs)
    assert result.route == "native"
    assert np.isfinite(result.images).all()
