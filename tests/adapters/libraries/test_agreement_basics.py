"""Where the three libraries must say the same, and where one seed must."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from models_for_tests import LIGHT, cnn, images, labels

from sparring.adapters.attacks.catalogue import ATTACKS
from sparring.adapters.attacks.library import Unsupported, load_library
from sparring.adapters.attacks.run import attack

LIBRARIES = ("art", "foolbox", "torchattacks")
ROUTES: tuple[Any, ...] = ("native", "bridged")
RANDOM = {"pgd", "vmi-fgsm", "vni-fgsm", "square", "pixle", "one-pixel", "hopskipjump", "boundary"}
RANDOM |= {"salt-and-pepper", "uniform-noise", "gaussian-noise", "apgd", "autoattack"}
PAIRS = [
    pytest.param(key, library, id=f"{library}-{key[0]}-{key[1]}")
    for key, canonical in ATTACKS.items()
    for library in LIBRARIES
    if not canonical.fits  # patches: test_own_patch.py and test_art_patches.py
    and not isinstance(load_library(library).find(canonical), Unsupported)
]
SIZES = {("square", "l2"): (1, 20, 20)}  # smaller ones are the next file's business
NEAREST = {"deepfool", "cw", "hopskipjump", "boundary", "salt-and-pepper"}


def run(key: tuple[str, str], library: str, **more: Any) -> Any:
    classifier = cnn(SIZES.get(key, (1, 8, 8)))
    x = images(6, classifier.input_shape)
    return attack(classifier, x, labels(classifier, x), key[0], norm=key[1], library=library, **{**LIGHT[key], **more})


@pytest.mark.parametrize(
    "parameters", [{"name": "fgsm"}, {"name": "pgd", "steps": 40, "random_start": False}, {"name": "bim"}], ids=str
)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 12, 10)])
def test_fgsm_bim_and_pgd_are_the_same_in_all_libraries_on_both_routes(parameters: dict[str, Any], shape: Any) -> None:
    classifier = cnn(shape)
    x = np.random.default_rng(1).random((32, *shape), dtype=np.float32)
    y = labels(classifier, x)
    results = [
        attack(classifier, x, y, library=library, route=route, eps=0.1, **parameters).images
        for library in LIBRARIES
        for route in ROUTES
    ]
    assert all(np.abs(result - results[0]).max() <= 1e-6 for result in results)
    assert np.abs(results[0] - x).max() == pytest.approx(0.1, abs=1e-6)


@pytest.mark.parametrize(("key", "library"), PAIRS)
def test_the_bridge_changes_nothing(key: tuple[str, str], library: str) -> None:
    native, bridged = (run(key, library, route=route) for route in ROUTES)
    assert np.abs(native.images - bridged.images).max() <= 1e-4
    assert native.samples["success"].tolist() == bridged.samples["success"].tolist()


@pytest.mark.parametrize(("key", "library"), PAIRS)
def test_one_seed_gives_the_same_images_twice(key: tuple[str, str], library: str) -> None:
    first = run(key, library, seed=3).images
    np.random.default_rng().random()
    np.random.seed(None)  # noqa: NPY002 - what came before must not matter
    assert (first == run(key, library, seed=3).images).all()


@pytest.mark.parametrize(("key", "library"), [pair for pair in PAIRS if pair.values[0][0] in RANDOM])  # type: ignore[index]
def test_another_seed_gives_other_images(key: tuple[str, str], library: str) -> None:
    assert (run(key, library, seed=3).images != run(key, library, seed=4).images).any()


@pytest.mark.parametrize(
    ("key", "library"),
    [
        pair
        for pair in PAIRS
        if load_library(str(pair.values[1])).find(ATTACKS[pair.values[0]]).targeted is None  # type: ignore[index, union-attr]
    ],
)
def test_a_targeted_attack_moves_towards_the_target(key: tuple[str, str], library: str) -> None:
    classifier = cnn(SIZES.get(key, (1, 8, 8)))
    x = images(6, classifier.input_shape)
    y = labels(classifier, x)
    targets = (y + 1) % classifier.classes
    # torchattacks' square gives back the clean image where it fails
    stronger = {"eps": {"linf": 0.3, "l2": 3.0}[key[1]]} if "eps" in LIGHT[key] else {}
    result = run(key, library, targets=targets, **stronger)

    def distance(images: np.ndarray) -> np.ndarray:
        logits = classifier.logits(images).astype(np.float64)
        return np.asarray(np.log(np.exp(logits - logits[np.arange(6), targets][:, None]).sum(axis=1)))

    # attacks for the nearest image leave those alone for which they find nothing
    assert (distance(result.images) <= distance(x) + 1e-5).all()
    assert result.samples["target"].tolist() == targets.tolist()
    if ATTACKS[key].goal == "budget":
        assert (distance(result.images) < distance(x)).mean() > 0.5


@pytest.mark.parametrize(("key", "library"), [pair for pair in PAIRS if pair.values[0][0] in NEAREST])  # type: ignore[index]
def test_of_images_already_wrong_the_nearest_wrong_one_is_themselves(key: tuple[str, str], library: str) -> None:
    classifier = cnn()
    x = images(6, classifier.input_shape)
    y = labels(classifier, x)
    y[:3] = (y[:3] + 1) % classifier.classes
    result = attack(classifier, x, y, key[0], norm=key[1], library=library, **LIGHT[key])
    assert result.samples["success"][:3].all()
    assert result.samples["l2"][:3] == pytest.approx(0, abs=1e-4)
