"""ART's adversarial patch as the attack ``patch``; and what its other classes do otherwise, in the release that did."""

from __future__ import annotations

import importlib.metadata
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from models_for_tests import cnn, images
from torch_digits import digits, network

from sparring.adapters.attacks.catalogue import find
from sparring.adapters.attacks.library import AttackMapping, Call, Context, Crafted, Fit
from sparring.adapters.attacks.run import attack
from sparring.adapters.libraries.art.bridge import LIBRARY
from sparring.adapters.libraries.art.patches import SUMMED
from sparring.adapters.protocol import Counter

ART = importlib.metadata.version("adversarial-robustness-toolbox")
TARGET = 3
examined = pytest.mark.skipif(not ART.startswith("1.20."), reason=f"seen in ART 1.20.1, and this is {ART}")


@lru_cache
def patched(size: int, route: str = "native", target: int | None = TARGET, **more: Any) -> Any:
    fit, test = digits()
    aim = {} if target is None else {"targets": np.full(len(test[0]), target)}
    how = {"steps": 20, "batch": 8, **more}
    return attack(network(), *test, "patch", library="art", route=route, fit=fit, size=size, **aim, **how)  # type: ignore[arg-type]


def reached(result: Any) -> float:
    others = result.samples["y"] != TARGET
    return float((result.samples["pred_adv"] == TARGET)[others].mean())


def test_larger_patches_are_stronger_on_images_that_they_were_not_trained_on() -> None:
    rates = [reached(patched(size)) for size in (1, 5)]
    assert rates[0] < 0.05
    assert rates[1] > 0.3
    away, gray = patched(5, target=None), patched(5, target=None, steps=1, learning_rate=1e-9)
    assert away.samples["success"].mean() > 0.2 + gray.samples["success"].mean()


def test_by_a_view_of_any_network_it_is_the_same_patch() -> None:
    native, bridged = patched(4, steps=6), patched(4, "bridged", steps=6)
    np.testing.assert_allclose(native.extras["patch"], bridged.extras["patch"], atol=1e-4)
    np.testing.assert_allclose(native.images, bridged.images, atol=1e-4)
    assert native.notes == bridged.notes == (SUMMED, "decay: its learning rate stays what it is")
    # of each step it asks once more, whether these are probabilities
    assert (native.forwards, native.backwards) == (bridged.forwards, bridged.backwards) == (6 * 9, 6 * 8)


@pytest.mark.parametrize(("shape", "seen"), [("square", 49), ("circle", 25)])
def test_what_it_leaves(shape: str, seen: int) -> None:
    fit, test = Fit(images(8, (3, 12, 12)), np.zeros(8, np.int64)), images(5, (3, 12, 12), seed=1)
    model = cnn((3, 12, 12))
    result = attack(
        model,
        test,
        np.ones(5, int),
        "patch",
        library="art",
        fit=(fit.x, fit.labels),
        size=7,
        shape=shape,
        steps=2,
        rotation=0,
        scale_min=1,
        scale_max=1,
    )
    patch, mask = result.extras["patch"], result.extras["mask"]
    assert (patch.shape, patch.dtype, mask.shape, mask.dtype) == ((3, 7, 7), np.float32, (7, 7), bool)
    assert patch.min() >= 0
    assert patch.max() <= 1
    assert mask.sum() == seen  # its circle ends before the border
    pixels = (result.images != test).any(axis=1).sum(axis=(1, 2))
    assert (pixels > 0.6 * seen).all()
    assert (pixels <= 64).all()  # its nearest neighbors may make it a pixel wider


def one_call(x: np.ndarray, fit: Fit, seed: int) -> Call:
    params = find("patch").resolve({"size": 3, "steps": 2, "batch": 8})
    context = Context(params, x.shape[1:], 10, len(x), seed, True)
    mapping = LIBRARY.find(find("patch"))
    assert isinstance(mapping, AttackMapping)
    return Call(
        mapping.target, mapping.translate(context)[0], x, np.zeros(len(x), int), True, find("patch"), context, fit
    )


def test_one_patch_is_trained_for_all_batches_and_no_place_depends_on_them() -> None:
    x, fit, counter = images(7), Fit(images(10, seed=5), np.zeros(10, np.int64)), Counter()
    with LIBRARY.session(cnn(), "native", counter) as run:
        whole = run(one_call(x, fit, 0))
        spent = counter.backwards
        parts = [run(one_call(x[i : i + 3], fit, seed)) for seed, i in enumerate((0, 3, 6))]
        assert counter.backwards == spent == 16
    assert isinstance(whole, Crafted)
    np.testing.assert_array_equal(np.concatenate([part.images for part in parts]), whole.images)  # type: ignore[union-attr]


# --- what its classes do, in 1.20.1 ---------------------------------------------------------------------------------


@examined
def test_art_1_20_1_sums_the_gradients_of_all_steps() -> None:
    """AdversarialPatchPyTorch._train_step sets the model's gradients to zero, and never the patch's own."""
    import torch
    from art.attacks.evasion import AdversarialPatchPyTorch

    from sparring.adapters.libraries.art.bridge import _torch_estimator

    fit, _ = digits()
    with network().torch_module(Counter()) as module:
        attack_of_art = AdversarialPatchPyTorch(
            _torch_estimator(module, network()),
            rotation_max=0.0,
            scale_min=0.99,
            scale_max=1.0,
            patch_shape=(1, 8, 8),
            learning_rate=1e-9,
            max_iter=1,
            batch_size=8,
            verbose=False,
        )
        sums = []
        for _ in range(3):
            np.random.seed(0)  # noqa: NPY002 - the same place each time
            attack_of_art.generate(fit[0][:8], np.eye(10)[np.full(8, TARGET)], shuffle=False)
            sums.append(attack_of_art._patch.grad.clone())
    assert float(sums[0].abs().max()) > 0
    for times, step in enumerate(sums, start=1):
        torch.testing.assert_close(step, times * sums[0], rtol=1e-4, atol=1e-6)


@examined
@pytest.mark.parametrize("own", [True, False])
def test_art_1_20_1_in_numpy_can_not_be_made(own: bool) -> None:
    """AdversarialPatchNumpy takes the middle of the clip values, which estimators keep as np.float32, for no number."""
    from art.attacks.evasion import AdversarialPatchNumpy

    from sparring.adapters.libraries.art.bridge import _torch_estimator
    from sparring.adapters.libraries.art.estimator import estimator

    with network().torch_module(Counter()) as module:
        classifier = _torch_estimator(module, network()) if own else estimator(network())
        with pytest.raises(AttributeError, match="no attribute 'patch'"):
            AdversarialPatchNumpy(classifier, verbose=False)


@examined
def test_art_1_20_1_of_torch_is_a_circle_unless_its_own_class_is_asked() -> None:
    from art.attacks.evasion import AdversarialPatch

    from sparring.adapters.libraries.art.bridge import _torch_estimator

    with network().torch_module(Counter()) as module:
        attack_of_art = AdversarialPatch(_torch_estimator(module, network()), patch_shape=(1, 8, 8), verbose=False)
        assert attack_of_art._attack.patch_type == "circle"
    assert attack_of_art._attack.learning_rate == 5  # from gray to white is .5


@examined
def test_art_1_20_1_of_tensorflow_mirrors_a_small_patch_all_over_the_image() -> None:
    """AdversarialPatchTensorFlowV2._random_overlay fills with REFLECT what lies around the patch, and its mask too."""
    tensorflow = pytest.importorskip("tensorflow")
    from art.attacks.evasion import AdversarialPatchTensorFlowV2
    from art.estimators.classification import TensorFlowV2Classifier

    classifier = TensorFlowV2Classifier(
        model=lambda x, training=False: tensorflow.reduce_mean(x, axis=(1, 2)),
        nb_classes=3,
        input_shape=(16, 16, 3),
        loss_object=tensorflow.keras.losses.CategoricalCrossentropy(from_logits=True),
        clip_values=(0.0, 1.0),
    )
    attack_of_art = AdversarialPatchTensorFlowV2(classifier, patch_shape=(16, 16, 3), rotation_max=0.0, verbose=False)
    covered = attack_of_art.apply_patch(np.zeros((1, 16, 16, 3), np.float32), scale=0.25)[0].any(axis=-1)
    assert covered.mean() > 0.9  # of a sixteenth
