"""What Foolbox does that nobody would guess, and what the bridge makes of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from models_for_tests import LIGHT, OutputsOnly, cnn, images, keras_cnn, labels, linear

from sparring.adapters.attacks.library import Call
from sparring.adapters.attacks.run import attack
from sparring.adapters.errors import NotSupported
from sparring.adapters.libraries.foolbox.bridge import LIBRARY
from sparring.adapters.protocol import Counter

X = images(5)


def test_what_cw_never_finds_comes_back_as_it_was_and_not_black() -> None:
    """Foolbox 3.3.4 returns an all-zero image, and calls it a success where the model misreads a black one."""
    import foolbox
    import torch

    with cnn().torch_module(Counter()) as module:
        model = foolbox.PyTorchModel(module, bounds=(0, 1), device="cpu")
        cw = foolbox.attacks.L2CarliniWagnerAttack(binary_search_steps=1, steps=1, initial_const=1e-3)
        _, own, _ = cw(model, torch.from_numpy(X), torch.from_numpy(labels(cnn(), X)), epsilons=None)
    assert (own == 0).all()
    result = attack(cnn(), X, labels(cnn(), X), "cw", library="foolbox", steps=1, search_steps=1, initial_const=1e-3)
    assert (result.images == X).all()
    assert not result.samples["success"].any()


@pytest.mark.parametrize("name", ["hopskipjump", "boundary"])
def test_an_image_without_a_start_does_not_fail_its_batch(name: str) -> None:
    """Foolbox 3.3.4 raises for the whole batch; here no start is drawn, and all images are of one class."""
    classifier, weights = linear(2)
    x = (0.5 + 0.2 * np.sign(weights[:1])).reshape(1, 1, 6, 6).astype(np.float32).repeat(3, axis=0)
    result = attack(classifier, x, [0, 0, 0], name, library="foolbox", start_draws=0, steps=2)
    assert (result.images == x).all()
    assert not result.samples["success"].any()


def test_restarts_find_no_less_than_one_start() -> None:
    x = images(60)
    y = labels(cnn(), x)
    one, five = (
        attack(cnn(), x, y, "pgd", library="foolbox", eps=0.02, steps=1, restarts=n).samples["success"].sum()
        for n in (1, 5)
    )
    assert five >= one > 0


def test_many_images_are_split_where_hopskipjump_would_need_too_much_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    kwargs: dict[str, Any] = {"library": "foolbox", "steps": 3, "initial_evaluations": 20}
    whole = attack(cnn(), X, labels(cnn(), X), "hopskipjump", **kwargs)
    monkeypatch.setattr("sparring.adapters.libraries.foolbox.bridge.NOISE_BYTES", 20_000)
    split = attack(cnn(), X, labels(cnn(), X), "hopskipjump", **kwargs)
    assert whole.samples["success"].all()
    assert split.samples["success"].all()
    assert (split.images != whole.images).any()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_noise_keeps_its_length(norm: str) -> None:
    name = {"linf": "uniform-noise", "l2": "gaussian-noise"}[norm]
    result = attack(cnn(), X, labels(cnn(), X), name, library="foolbox", eps=0.2)
    assert result.samples[norm] == pytest.approx(0.2, abs=0.01)
    assert not [note for note in result.notes if "budget" in note]


def test_the_generic_attack_has_targets_only() -> None:
    y = labels(cnn(), X)
    with pytest.raises(NotSupported, match="GenAttack has no untargeted version"):
        attack(cnn(), X, y, "foolbox:GenAttack", eps=0.1, steps=2)
    assert attack(cnn(), X, y, "foolbox:GenAttack", eps=0.1, steps=2, targeted=True).images.shape == X.shape


def test_the_data_set_of_the_dataset_attack_is_the_batch() -> None:
    x = images(12)
    result = attack(cnn(), x, labels(cnn(), x), "foolbox:DatasetAttack")
    assert result.samples["success"].all() == (len(set(labels(cnn(), x))) > 1)
    assert all(any((one == other).all() for other in x) for one in result.images)


@pytest.mark.parametrize("name", ["hopskipjump", "boundary", "salt-and-pepper", "uniform-noise"])
def test_black_box_attacks_run_without_gradients(name: str) -> None:
    light = next(value for key, value in LIGHT.items() if key[0] == name)
    result = attack(OutputsOnly(cnn()), X, labels(cnn(), X), name, library="foolbox", **light)  # type: ignore[arg-type]
    assert (result.route, result.backwards) == ("bridged", 0)


def test_gradients_that_are_not_there_are_not_supported() -> None:
    with (
        LIBRARY.session(OutputsOnly(cnn()), "bridged", Counter()) as run,
        pytest.raises(NotSupported, match="gradients"),
    ):  # type: ignore[arg-type]
        run(Call("L2DeepFoolAttack", {}, X, labels(cnn(), X), False, None))


def test_the_same_noise_in_all_channels_means_channels_first_on_tensorflow_too() -> None:
    """Foolbox 3.3.4 asks Keras for its layout, which is channels-last, when it gets channels-first images."""
    y = labels(keras_cnn(), X)
    result = attack(keras_cnn(), X, y, "foolbox:SaltAndPepperNoiseAttack", route="native", steps=20)
    different = (result.images != X).reshape(5, -1)
    assert different.any()
    # noise that is the same along the width changes whole rows, at each of which 8 pixels are one draw
    assert not all(row.reshape(8, 8).all(axis=1).sum() * 8 == row.sum() for row in different if row.any())


def test_pointwise_needs_the_bridge_on_tensorflow() -> None:
    """eagerpy 0.30 indexes TensorFlow's tensors by tensors only, and Foolbox 3.3.4 gives it a list."""
    y = labels(keras_cnn(), X)
    with pytest.raises(NotSupported, match="take route bridged"):
        attack(keras_cnn(), X, y, "foolbox:PointwiseAttack")
    assert attack(keras_cnn(), X, y, "foolbox:PointwiseAttack", route="bridged").samples["success"].all()


@pytest.mark.parametrize("name", ["fgsm", "pgd", "deepfool", "cw"])
def test_both_routes_to_tensorflow_agree(name: str) -> None:
    light: dict[str, Any] = {"pgd": {"eps": 0.1, "random_start": False}, "fgsm": {"eps": 0.1}}.get(name, {"steps": 20})
    y = labels(keras_cnn(), X)
    results = [attack(keras_cnn(), X, y, name, library="foolbox", route=r, **light) for r in ("native", "bridged")]  # type: ignore[arg-type]
    assert np.abs(results[0].images - results[1].images).max() <= 1e-5
    assert results[0].forwards == results[1].forwards
