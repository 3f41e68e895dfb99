"""sparring's adversarial patch: what it is made of, and that it does on unseen digits what it was trained for."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models_for_tests import OutputsOnly, cnn, images, labels
from torch_digits import digits, network

from sparring.adapters.attacks.catalogue import find
from sparring.adapters.attacks.library import Call, Context, Crafted, Fit, load_library
from sparring.adapters.attacks.run import attack
from sparring.adapters.errors import InputError, NotSupported
from sparring.adapters.libraries.own.patch import batches, towards
from sparring.adapters.protocol import Counter

TARGET = 3
SHORT = {"steps": 40, "batch": 8}


@lru_cache
def patched(size: int, target: int | None = TARGET, **more: Any) -> Any:
    fit, test = digits()
    aim = {} if target is None else {"targets": np.full(len(test[0]), target)}
    return attack(network(), *test, "patch", library="sparring", fit=fit, size=size, **{**SHORT, **aim, **more})


def reached(result: Any, target: int = TARGET) -> float:
    """Of the images of other classes, how many are now of the target."""
    others = result.samples["y"] != target
    return float((result.samples["pred_adv"] == target)[others].mean())


def test_larger_patches_are_stronger_on_images_that_they_were_not_trained_on() -> None:
    rates = [reached(patched(size)) for size in (1, 3, 5)]
    assert rates[0] < rates[1] < rates[2]
    assert rates[0] < 0.05
    assert rates[2] > 0.75


def test_it_is_the_training_that_does_it() -> None:
    untrained = attack(
        network(),
        *digits()[1],
        "patch",
        library="sparring",
        fit=digits()[0],
        size=5,
        steps=1,
        learning_rate=1e-9,
        targets=np.full(len(digits()[1][0]), TARGET),
    )
    np.testing.assert_allclose(untrained.extras["patch"], 0.5, atol=1e-6)
    np.testing.assert_array_equal(untrained.extras["placement"], patched(5).extras["placement"])
    assert reached(patched(5)) > 0.6 + reached(untrained)


def test_untargeted_it_leads_away_from_the_true_classes() -> None:
    # a patch for one class leaves the images of that class as they are, this one none
    away, gray = patched(5, None), patched(5, None, steps=1, learning_rate=1e-9)
    assert away.samples["success"].mean() > 0.3 + gray.samples["success"].mean()
    assert (away.samples["target"] == -1).all()


@pytest.mark.parametrize("shape", ["square", "circle"])
def test_what_it_leaves(shape: str) -> None:
    result = patched(5, shape=shape, steps=3)
    x = digits()[1][0]
    patch, mask, placement = (result.extras[name] for name in ("patch", "mask", "placement"))
    assert (patch.shape, patch.dtype, mask.shape, mask.dtype) == ((1, 5, 5), np.float32, (5, 5), bool)
    assert placement.shape == (len(x), 4)
    assert patch.min() >= 0
    assert patch.max() <= 1
    assert mask.sum() == (21 if shape == "circle" else 25)
    rows, columns = np.arange(8)[:, None], np.arange(8)
    far = np.hypot(rows - placement[:, 0, None, None], columns - placement[:, 1, None, None]) > 5 * 1.1 / 2 * 2**0.5
    assert far.any()
    assert not (result.images != x)[:, 0][far].any()
    assert result.samples["l0"].max() <= 49
    # so many training images forwards and backwards, and nothing else: pasting asks nobody
    assert (result.forwards, result.backwards) == (3 * 8, 3 * 8)


def one_call(x: np.ndarray, y: np.ndarray, fit: Fit, seed: int = 0, **more: Any) -> Call:
    params = find("patch").resolve({"size": 3, "steps": 2, "batch": 8, **more})
    return Call("patch", params, x, y, False, find("patch"), Context(params, x.shape[1:], 10, len(x), seed, False), fit)


def test_one_patch_is_trained_for_all_batches_and_no_place_depends_on_them() -> None:
    x = images(7)
    y = labels(cnn(), x)
    fit = Fit(images(10, seed=5), np.zeros(10, np.int64))
    counter = Counter()
    with load_library("sparring").session(cnn(), "bridged", counter) as run:
        whole = run(one_call(x, y, fit))
        assert counter == Counter(16, 16)
        # the seed of a later batch is another
        parts = [run(one_call(x[i : i + 3], y[i : i + 3], fit, seed=i)) for i in (0, 3, 6)]
        assert counter == Counter(16, 16)
        other = run(one_call(x, y, Fit(fit.x, fit.labels + 1), seed=0))
        assert counter == Counter(32, 32)
    assert isinstance(whole, Crafted)
    np.testing.assert_array_equal(np.concatenate([part.images for part in parts]), whole.images)
    np.testing.assert_array_equal(
        np.concatenate([part.samples["placement"] for part in parts]), whole.samples["placement"]
    )
    assert (other.whole["patch"] != whole.whole["patch"]).any()
    with load_library("sparring").session(cnn(), "bridged", Counter()) as run:
        again, another = run(one_call(x, y, fit)), run(one_call(x, y, Fit(fit.x.copy(), fit.labels), seed=1))
    np.testing.assert_array_equal(again.images, whole.images)
    assert (another.samples["placement"] != whole.samples["placement"]).any()


@given(st.integers(1, 30), st.integers(1, 12), st.integers(1, 20), st.integers(0, 99))
def test_every_image_is_trained_on_as_often_as_any_other(n: int, batch: int, steps: int, seed: int) -> None:
    order = batches(np.random.default_rng(seed), n, batch, steps)
    size = min(batch, n)
    assert len(order) == steps
    assert all(len(rows) == len(set(rows)) == size for rows in order)
    turns = n // size  # batches until the images are drawn anew
    for start in range(0, steps, turns):
        rows = np.concatenate(order[start : start + turns])
        assert len(rows) == len(set(rows))


@settings(max_examples=30)
@given(st.integers(0, 10**6))
def test_towards_is_the_gradient_of_the_mean_cross_entropy(seed: int) -> None:
    generator = np.random.default_rng(seed)
    z, y = generator.normal(size=(4, 5)).astype(np.float32), generator.integers(0, 5, 4)

    def loss(z: np.ndarray) -> float:
        return float((np.log(np.exp(z).sum(axis=1)) - z[np.arange(4), y]).mean())

    step = 1e-5 * np.eye(20).reshape(20, 4, 5)
    numeric = [(loss(z.astype(np.float64) + one) - loss(z.astype(np.float64) - one)) / 2e-5 for one in step]
    np.testing.assert_allclose(towards(z, y).ravel(), numeric, atol=1e-6)


def test_the_gradient_is_there_where_the_network_is_certain() -> None:
    z = np.array([[60, 0, 10]], np.float32)  # 1 - p is 0 in float32, and in float64 too
    gradient = towards(z, np.array([0]))
    assert gradient[0, 0] < 0 < gradient[0, 2]
    assert gradient[0, 0] == pytest.approx(-gradient[0, 2], rel=1e-3)


def test_what_can_not_be_is_said() -> None:
    x = images(3)
    y = labels(cnn(), x)
    ask: Any = {"library": "sparring", "fit": (x, y)}
    with pytest.raises(InputError, match="patch needs a value for size"):
        attack(cnn(), x, y, "patch", **ask)
    with pytest.raises(InputError, match="size 9 is more than the images have, 8 x 8 pixels"):
        attack(cnn(), x, y, "patch", size=9, **ask)
    with pytest.raises(InputError, match=r"scale_min 2 is more than scale_max 1\.1"):
        attack(cnn(), x, y, "patch", size=3, scale_min=2, **ask)
    with pytest.raises(InputError, match="trained on other images"):
        attack(cnn(), x, y, "patch", size=3, library="sparring")
    with pytest.raises(NotSupported, match="gradients"):
        attack(OutputsOnly(cnn()), x, y, "patch", size=3, **ask)  # type: ignore[arg-type]
    for library, reason in (
        ("foolbox", "Foolbox has no adversarial patches"),
        ("torchattacks", "has no adversarial pat"),
    ):
        with pytest.raises(NotSupported, match=reason):
            attack(cnn(), x, y, "patch", size=3, library=library, fit=(x, y))
