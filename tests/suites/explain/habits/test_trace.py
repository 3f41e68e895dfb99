"""A trace holds every query of a library, image by image, and changes nothing of the attack."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from models_for_tests import OutputsOnly, cnn, images, labels

from sparring.adapters.attacks.library import load_library
from sparring.adapters.attacks.request import request
from sparring.adapters.attacks.run import attack
from sparring.adapters.protocol import Differentiable
from sparring.suites.explain.habits.trace import recorder, trace

PARAMS = {"eps": 0.05, "steps": 3, "eps_step": 0.02}
every_library = pytest.mark.parametrize("library", ["art", "foolbox", "torchattacks", "referee"])


@every_library
def test_the_attack_is_the_one_that_is_executed(library: str) -> None:
    classifier, x = cnn(), images(4)
    y = labels(classifier, x)
    recorded = trace(load_library(library), classifier, x, y, request("bim", params=PARAMS))
    plain = attack(classifier, x, y, "bim", library=library, route="bridged", **PARAMS)
    np.testing.assert_array_equal(recorded.batch_images, plain.images)
    np.testing.assert_allclose(recorded.images, plain.images, atol=1e-6)


@every_library
def test_every_gradient_is_recorded_with_its_point_cotangent_and_answer(library: str) -> None:
    classifier, x = cnn(), images(3)
    y = labels(classifier, x)
    recorded = trace(load_library(library), classifier, x, y, request("bim", params=PARAMS))
    for path, image, label in zip(recorded.paths, x, y, strict=True):
        assert len(path.gradients) == PARAMS["steps"]
        assert path.label == label
        np.testing.assert_array_equal(path.gradients[0].x, image)
        for query, following in zip(path.gradients, [*path.gradients[1:], None], strict=True):
            assert query.cotangent is not None
            assert query.cotangent.argmin() == label  # of the cross-entropy
            assert query.batch == 1
            again = classifier.vjp(query.x[None], query.cotangent[None])[0]
            np.testing.assert_allclose(query.result, again, atol=1e-6)
            after = path.final if following is None else following.x
            moved = np.clip(query.x + 0.02 * np.sign(query.result), image - 0.05, image + 0.05)
            np.testing.assert_allclose(after, np.clip(moved, 0, 1), atol=1e-6)
    assert {query.batch for query in recorded.batch_queries if query.kind == "vjp"} == {3}


def test_a_recorder_has_the_capability_of_its_classifier() -> None:
    assert isinstance(recorder(cnn()), Differentiable)
    assert not isinstance(recorder(OutputsOnly(cnn())), Differentiable)


def test_what_is_recorded_is_a_copy() -> None:
    recording: Any = recorder(cnn())
    x = images(1)
    recording.logits(x)[:] = 7
    x[:] = 0
    (query,) = recording.take()
    assert query.x.any()
    assert not (query.result == 7).any()
    assert recording.take() == ()
