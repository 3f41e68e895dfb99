"""Our NumPy estimator against ART's own ones, and what ART does that nobody would guess."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models_for_tests import LIGHT, OutputsOnly, cnn, images, keras_cnn, labels

from sparring.adapters.attacks.library import Call
from sparring.adapters.attacks.run import attack
from sparring.adapters.errors import NotSupported
from sparring.adapters.libraries.art.bridge import LIBRARY, _tensorflow_estimator, _torch_estimator
from sparring.adapters.libraries.art.estimator import (
    GradientsEstimator,
    LogitsEstimator,
    ProbabilitiesEstimator,
    estimator,
)
from sparring.adapters.protocol import Counter

X = images(5)


@pytest.fixture(params=["torch", "tensorflow"])
def pair(request: pytest.FixtureRequest) -> Any:
    """ART's own estimator of a framework, and ours, of one model."""
    if request.param == "tensorflow":
        classifier = keras_cnn()
        yield _tensorflow_estimator(classifier.tensorflow_function(Counter()), classifier), estimator(classifier)
    else:
        with cnn().torch_module(Counter()) as module:
            yield _torch_estimator(module, cnn()), estimator(cnn())


def test_predictions_agree(pair: Any) -> None:
    theirs, ours = (one.predict(X, batch_size=2) for one in pair)
    assert theirs == pytest.approx(ours, abs=1e-5)


def test_loss_and_its_gradient_agree_for_one_hot_labels(pair: Any) -> None:
    y = np.eye(10, dtype=np.float32)[[0, 3, 9, 3, 1]]
    theirs, ours = (one.loss_gradient(X, y) for one in pair)
    assert theirs == pytest.approx(ours, abs=1e-5)


@pytest.mark.parametrize("label", [None, 4, np.array([0, 3, 9, 3, 1])], ids=["all", "one", "each"])
def test_class_gradients_agree(pair: Any, label: Any) -> None:
    theirs, ours = (one.class_gradient(X, label=label) for one in pair)
    assert theirs.shape == ours.shape == (5, 10 if label is None else 1, 1, 8, 8)
    assert theirs == pytest.approx(ours, abs=1e-5)


def test_labels_may_be_indices() -> None:
    ours, y = estimator(cnn()), np.array([0, 3, 9, 3, 1])
    assert isinstance(ours, GradientsEstimator)
    assert (ours.loss_gradient(X, y) == ours.loss_gradient(X, np.eye(10)[y])).all()
    assert ours.compute_loss(X, y).shape == (5,)
    assert ours.compute_loss(X, y, reduction="mean") == pytest.approx(ours.compute_loss(X, y).mean())


def test_probabilities_are_those_of_the_logits_in_batches_too() -> None:
    whole, parts = (ProbabilitiesEstimator(cnn()).predict(X, batch_size=size) for size in (5, 2))
    assert whole == pytest.approx(parts, abs=1e-6)
    assert whole.sum(axis=1) == pytest.approx(1, abs=1e-5)


def test_a_classifier_without_gradients_gets_an_estimator_without_them() -> None:
    assert type(estimator(OutputsOnly(cnn()))) is LogitsEstimator  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["square", "one-pixel", "hopskipjump", "boundary"])
def test_black_box_attacks_run_without_gradients(name: str) -> None:
    black_box = OutputsOnly(cnn())
    light = next(value for key, value in LIGHT.items() if key[0] == name)
    result = attack(black_box, X, labels(cnn(), X), name, library="art", **light)  # type: ignore[arg-type]
    assert (result.route, result.backwards) == ("bridged", 0)
    assert result.forwards > 0


def test_white_box_attacks_say_that_they_need_gradients() -> None:
    with (
        LIBRARY.session(OutputsOnly(cnn()), "bridged", Counter()) as run,
        pytest.raises(NotSupported, match="DeepFool needs more"),
    ):  # type: ignore[arg-type]
        run(Call("DeepFool", {}, X, labels(cnn(), X), False, None))


def test_there_is_no_native_route_without_a_native_door() -> None:
    with pytest.raises(NotSupported, match="no native route"), LIBRARY.session(OutputsOnly(cnn()), "native", Counter()):  # type: ignore[arg-type]
        pass


def test_its_own_deepfool_moves_a_wrong_image_to_its_true_class_and_ours_leaves_it() -> None:
    """ART 1.20.1 ignores the labels of an untargeted DeepFool."""
    x = images(20)
    predicted = labels(cnn(), x)
    y = np.argsort(cnn().logits(x), axis=1)[:, -2]  # all wrong, and the true class is next
    own = attack(cnn(), x, y, "art:DeepFool", epsilon=0.02)
    ours = attack(cnn(), x, y, "deepfool", library="art")
    assert (y != predicted).all()
    assert not own.samples["success"].all()
    assert ours.samples["success"].all()
    assert ours.samples["l2"].max() == 0


def test_pixels_that_one_pixel_leaves_alone_are_left_alone() -> None:
    """ART 1.20.1 multiplies the image by 255 and divides it again, so that every pixel moves by a rounding error."""
    result = attack(cnn(), X, labels(cnn(), X), "one-pixel", library="art", pixels=2, steps=2)
    assert result.samples["l0"].max() <= 2


def test_one_batch_is_one_batch() -> None:
    for name, light in (("pgd", {"eps": 0.1, "steps": 2}), ("cw", {"steps": 2}), ("deepfool", {}), ("jsma", {})):
        x = images(40)
        call = attack(cnn(), x, labels(cnn(), x), name, library="art", **light).call
        assert call["kwargs"]["batch_size"] == 40


def test_deepfool_s_candidates_are_those_of_each_image() -> None:
    """ART 1.20.1 takes those of all images together."""
    x = images(6)
    y = labels(cnn(), x)
    together, alone = (
        attack(cnn(), x, y, "deepfool", library="art", candidates=3, batch_size=n).images for n in (6, 1)
    )
    assert together == pytest.approx(alone, abs=1e-5)


def test_geoda_leaves_no_file_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ART 1.20.1 saves its basis in the working directory, and builds it with np.mat, which NumPy 2 dropped."""
    monkeypatch.chdir(tmp_path)
    assert attack(cnn(), X, labels(cnn(), X), "art:GeoDA", max_iter=500).samples["success"].any()
    assert not list(tmp_path.iterdir())
    assert not hasattr(np, "mat")


def test_the_forwards_of_a_tensorflow_model_are_counted_in_every_call() -> None:
    x = images(5)
    result = attack(keras_cnn(), x, labels(keras_cnn(), x), "square", library="art", eps=0.001, queries=7)
    assert result.route == "native"
    assert result.forwards >= 7 * 5


@pytest.mark.parametrize("route", ["native", "bridged"])
def test_momentum_runs_on_tensorflow(route: Any) -> None:
    """ART 1.20.1 refuses it in its own TensorFlow loop (issue 2439)."""
    x = images(5)
    y = labels(keras_cnn(), x)
    ours = attack(keras_cnn(), x, y, "mi-fgsm", library="art", route=route, eps=0.1)
    theirs = attack(keras_cnn(), x, y, "mi-fgsm", library="torchattacks", eps=0.1)
    assert np.abs(ours.images - theirs.images).max() <= 1e-6
