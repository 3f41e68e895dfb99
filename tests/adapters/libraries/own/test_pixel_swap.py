"""The pixel swap against a slow reference, one image, one pixel and one query at a time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from models_for_tests import OutputsOnly

from sparring.adapters.attacks.catalogue import find
from sparring.adapters.attacks.run import attack
from sparring.adapters.errors import InputError, NotSupported
from sparring.adapters.libraries.own.pixel_swap import pixel_swap

CLASSES = 3


class Places:
    """Decides by the pixels at fixed places, so that moving pixels matters; keeps every image it is asked about."""

    framework = "onnx"
    classes = CLASSES

    def __init__(self, shape, seed=0):
        self.input_shape = shape
        self.weights = np.random.default_rng(seed).normal(size=(int(np.prod(shape)), CLASSES)).astype(np.float32)
        self.queries = []

    def logits(self, x):
        self.queries.append(x.copy())
        return (x.reshape(len(x), -1) - 0.5) @ self.weights


def slowly(classifier, image, label, targeted, steps):
    """What the source says, for one image: the result, and how often the classifier was asked."""

    def done(x):
        return (classifier.logits(x[None]).argmax() == label) == targeted

    x, (_, height, width) = image.copy(), image.shape
    if done(x):
        return x, 1
    pixels = [(float(np.mean(image[:, r, c], dtype=np.float64)), r, c) for r in range(height) for c in range(width)]
    pixels.sort()
    queries, swaps = 1, 0
    while len(pixels) > 1 and pixels[0][0] < pixels[-1][0] and (not steps or swaps < steps):
        (_, r, c), (_, r2, c2) = pixels.pop(0), pixels.pop()
        x[:, r, c], x[:, r2, c2] = x[:, r2, c2].copy(), x[:, r, c].copy()
        queries, swaps = queries + 1, swaps + 1
        if done(x):
            return x, queries
    return image, queries


def images(shape):
    levels = st.sampled_from([0.0, 0.25, 0.5, 1.0]) | st.floats(0, 1, width=32)  # levels make ties
    return st.integers(1, 5).flatmap(lambda n: arrays(np.float32, (n, *shape), elements=levels))


@given(
    st.sampled_from([(1, 3, 4), (3, 2, 3), (1, 1, 1), (3, 3, 3)]).flatmap(images),
    st.integers(0, 10**6),
    st.booleans(),
    st.integers(0, 6),
)
def test_every_image_comes_out_as_from_the_slow_reference(x, seed, targeted, steps):
    fast, slow = Places(x.shape[1:], seed), Places(x.shape[1:], seed)
    y = np.random.default_rng(seed).integers(0, CLASSES, len(x))
    before = x.copy()
    swapped = pixel_swap(fast, x, y, targeted=targeted, steps=steps)
    expected, queries = zip(*(slowly(slow, *each, targeted, steps) for each in zip(x, y, strict=True)), strict=True)
    np.testing.assert_array_equal(swapped, np.stack(expected))
    assert sum(map(len, fast.queries)) == sum(queries)
    np.testing.assert_array_equal(x, before)


@given(images((3, 4, 4)), st.integers(0, 10**6))
def test_pixels_only_change_places(x, seed):
    model = Places(x.shape[1:], seed)
    y = model.logits(x).argmax(1)
    swapped = pixel_swap(model, x, y, targeted=False, steps=0)
    for before, after in zip(x, swapped, strict=True):
        assert sorted(map(tuple, before.reshape(3, -1).T)) == sorted(map(tuple, after.reshape(3, -1).T))
    different = (swapped != x).any(axis=(1, 2, 3))
    assert (model.logits(swapped).argmax(1) != y).tolist() == different.tolist()  # it is misclassified or left alone
    for steps in (1, 2):
        few = pixel_swap(model, x, y, targeted=False, steps=steps)
        assert ((few != x).any(axis=1).sum(axis=(1, 2)) <= 2 * steps).all()


def test_the_darkest_changes_places_with_the_lightest_first():
    x = np.array([[[[0.1, 0.9], [0.5, 0.3]]]], np.float32)
    model = Places((1, 2, 2))
    model.weights[:] = [[0, 0, 0], [0, 5, 0], [0, 0, 0], [0, 0, 0]]
    model.weights[:, 0] = [0, 0, 0, 0]
    y = model.logits(x).argmax(1)
    assert y == 1
    swapped = pixel_swap(model, x, y, targeted=False, steps=0)
    np.testing.assert_array_equal(swapped, np.array([[[[0.9, 0.1], [0.5, 0.3]]]], np.float32))


def test_an_image_does_not_depend_on_its_batch():
    x = np.random.default_rng(3).random((12, 1, 5, 5), np.float32)
    model = Places((1, 5, 5))
    y = model.logits(x).argmax(1)
    whole = pixel_swap(model, x, y, targeted=False, steps=0)
    assert (whole != x).any()
    one_by_one = [pixel_swap(model, x[i : i + 1], y[i : i + 1], targeted=False, steps=0) for i in range(12)]
    np.testing.assert_array_equal(whole, np.concatenate(one_by_one))


def test_misclassified_images_cost_one_query_and_stay():
    x = np.random.default_rng(0).random((4, 1, 4, 4), np.float32)
    model = Places((1, 4, 4))
    wrong = (model.logits(x).argmax(1) + 1) % CLASSES
    result = attack(OutputsOnly(model), x, wrong, "pixel-swap", library="sparring")
    np.testing.assert_array_equal(result.images, x)
    assert (result.forwards, result.backwards) == (4, 0)
    assert not pixel_swap(model, x[:0], wrong[:0], targeted=False, steps=0).size


def test_as_an_attack_by_name():
    x = np.random.default_rng(1).random((10, 1, 4, 4), np.float32)
    model = Places((1, 4, 4))
    y = model.logits(x).argmax(1)
    all_pairs, one_pair = (attack(model, x, y, "pixel-swap", library="sparring", **more) for more in ({}, {"steps": 1}))
    assert all_pairs.samples["success"].sum() > one_pair.samples["success"].sum() > 0
    assert one_pair.forwards == 20
    assert one_pair.samples["l0"].max() <= 2
    assert find("pixel-swap").needs == "decisions"
    again = attack(model, x, y, "pixel-swap", library="sparring")
    np.testing.assert_array_equal(again.images, all_pairs.images)
    by_its_class = attack(model, x, y, "sparring:pixel_swap", params={"steps": 1})
    np.testing.assert_array_equal(by_its_class.images, one_pair.images)
    with pytest.raises(InputError, match="steps: -1 is not a whole number at least 0"):
        attack(model, x, y, "pixel-swap", library="sparring", steps=-1)
    with pytest.raises(NotSupported, match="Foolbox has no pixel swap"):
        attack(model, x, y, "pixel-swap", library="foolbox")
