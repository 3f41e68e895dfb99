"""On the backend that Keras has in this process; the last test runs the whole file again on torch.

``test_keras_jax.py`` runs it on JAX.
"""

from __future__ import annotations

import os
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparring.adapters.conformance.classifiers import (
    DIFFERENTIABLE_CHECKS,
    Check,
    check_rebuilds,
    check_tensorflow_function,
    check_torch_module,
)
from sparring.adapters.errors import InputError
from sparring.adapters.frameworks.keras import keras_classifier
from sparring.adapters.frameworks.keras_jax import KerasJaxClassifier
from sparring.adapters.frameworks.keras_tensorflow import KerasTensorflowClassifier
from sparring.adapters.frameworks.keras_torch import KerasTorchClassifier
from sparring.adapters.protocol import Counter, TensorflowNative, TorchNative

import keras  # isort: skip
from keras import layers

CLASSES = 5
BACKEND = keras.backend.backend()
NATIVE_CHECKS = {"tensorflow": [check_tensorflow_function], "torch": [check_torch_module]}.get(BACKEND, [])


def cnn(channels: int = 3, head: tuple[Any, ...] = ()) -> Any:
    """12 x 12 pixels -> 5 logits, with layers that training changes, and moving statistics that are not 0 and 1."""
    keras.utils.set_random_seed(0)
    norm = layers.BatchNormalization(
        moving_mean_initializer=keras.initializers.RandomUniform(-1, 1),
        moving_variance_initializer=keras.initializers.RandomUniform(0.5, 2),
    )
    body = [layers.Conv2D(8, 3), norm, layers.ReLU(), layers.Dropout(0.5), layers.MaxPool2D(2), layers.Flatten()]
    return keras.Sequential([keras.Input((12, 12, channels)), *body, *(head or (layers.Dense(CLASSES),))])


def rnn() -> Any:
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [keras.Input((12, 12, 1)), layers.Reshape((12, 12)), layers.LSTM(16, dropout=0.5), layers.Dense(CLASSES)]
    )


def functional() -> Any:
    """A graph, not a chain, that ends in an activation."""
    images = keras.Input((12, 12, 3))
    pooled = layers.GlobalAveragePooling2D()(layers.Conv2D(8, 3, activation="tanh")(images))
    peaks = layers.GlobalMaxPooling2D()(images)
    scores = layers.Dense(CLASSES)(layers.Concatenate()([pooled, peaks]))
    return keras.Model(images, layers.Activation("softmax")(scores))


class Subclassed(keras.Model):  # type: ignore[misc]
    """No graph that could be copied: its softmax stays."""

    def __init__(self) -> None:
        super().__init__()
        keras.utils.set_random_seed(0)
        self.flatten, self.dense = layers.Flatten(), layers.Dense(CLASSES, activation="softmax")

    def call(self, x: Any, training: bool = False) -> Any:
        return self.dense(self.flatten(x))


CAFFE: dict[str, Any] = {"input_range": (0, 255), "mean": (104, 117, 123), "std": (58, 57, 56), "channel_order": "bgr"}
PROBABILITIES = {"output": "probabilities"}
CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "rgb": (cnn, {}),
    "grey, normalised": (lambda: cnn(1), {"mean": (0.1307,), "std": (0.3081,)}),
    "caffe": (cnn, CAFFE),
    "lstm": (rnn, {}),
    "softmax as activation": (lambda: cnn(head=(layers.Dense(CLASSES, activation="softmax"),)), PROBABILITIES),
    "softmax as layer": (lambda: cnn(head=(layers.Dense(CLASSES), layers.Softmax())), PROBABILITIES),
    "functional": (functional, PROBABILITIES),
    "subclassed": (Subclassed, {"input_shape": (3, 12, 12), **PROBABILITIES}),
}


def wrapped(model: Any, **options: Any) -> Any:
    return keras_classifier(model, **{"device": "cpu", **options})


@lru_cache
def case(name: str) -> tuple[Any, Any]:
    build, options = CASES[name]
    model = build()
    return model, wrapped(model, **options)


def images(n: int = 4, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).random((n, channels, 12, 12), np.float32)


def outputs(model: Any, x: np.ndarray) -> np.ndarray:
    return keras.ops.convert_to_numpy(model(x.transpose(0, 2, 3, 1), training=False))


@pytest.mark.parametrize("check", [*DIFFERENTIABLE_CHECKS, *NATIVE_CHECKS], ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", CASES)
def test_laws(name: str, check: Check) -> None:
    check(case(name)[1])


def test_shape_classes_and_capabilities_come_from_the_model() -> None:
    classifier = case("grey, normalised")[1]
    assert (classifier.input_shape, classifier.classes) == ((1, 12, 12), CLASSES)
    assert classifier.framework == f"keras-{BACKEND}"
    assert isinstance(classifier, TorchNative) == (BACKEND == "torch")
    assert isinstance(classifier, TensorflowNative) == (BACKEND == "tensorflow")


def test_preprocessing_is_what_the_options_say() -> None:
    model, classifier = case("caffe")
    seen = (images()[:, ::-1] * 255 - np.reshape(CAFFE["mean"], (3, 1, 1))) / np.reshape(CAFFE["std"], (3, 1, 1))
    np.testing.assert_allclose(classifier.logits(images()), outputs(model, seen.astype(np.float32)), atol=1e-5)


@pytest.mark.parametrize("name", [name for name, (_, options) in CASES.items() if "output" in options])
def test_probabilities_become_logits_of_the_same_classifier(name: str) -> None:
    model, classifier = case(name)
    exponentials = np.exp(classifier.logits(images()).astype(np.float64))
    softmax = exponentials / exponentials.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(softmax, outputs(model, images()), rtol=1e-4)


@pytest.mark.parametrize("name", ["softmax as activation", "softmax as layer", "functional"])
def test_a_softmax_that_is_taken_off_is_not_in_the_way_of_gradients(name: str) -> None:
    model = CASES[name][0]()
    model.set_weights([1000 * weight for weight in model.get_weights()])
    classifier = wrapped(model, **PROBABILITIES)
    least = np.eye(CLASSES, dtype=np.float32)[outputs(model, images()).argmin(axis=1)]
    assert (outputs(model, images()) * least).max() == 0
    assert (classifier.vjp(images(), least) != 0).any(axis=(1, 2, 3)).all()


def test_the_model_is_never_written_to() -> None:
    model = cnn(head=(layers.Dense(CLASSES, activation="softmax"),))
    model.layers[0].trainable = False
    before = [weight.copy() for weight in model.get_weights()]
    expected = outputs(model, images())
    for options in ({}, PROBABILITIES):
        classifier = wrapped(model, **options)
        classifier.vjp(images(), np.ones((4, CLASSES), np.float32))
        if BACKEND == "torch":
            flags = [p.requires_grad for p in model.parameters()]
            with classifier.torch_module(Counter()):
                pass
            assert [p.requires_grad for p in model.parameters()] == flags
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    assert [layer.trainable for layer in model.layers][:2] == [False, True]
    assert np.array_equal(outputs(model, images()), expected)


def test_training_goes_on_after_an_attack() -> None:
    model = cnn()
    model.compile(optimizer="sgd", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    classifier = wrapped(model)
    before = classifier.logits(images())
    model.fit(images().transpose(0, 2, 3, 1), np.arange(4), verbose=0)
    assert np.abs(classifier.logits(images()) - before).max() > 1e-4, "the classifier is the model, not a copy of it"


@pytest.mark.parametrize(
    ("build", "options", "message"),
    [
        (cnn, {"input_shape": (3, 20, 20)}, r"input_shape is \(3, 20, 20\), but the model takes \(3, 12, 12\)"),
        (cnn, {"classes": 7}, "classes is 7, but the model gives 5"),
        (cnn, {"output": "softmax"}, "'logits' or 'probabilities', not 'softmax'"),
        (cnn, {"layout": "NHWC"}, "'channels-first' or 'channels-last', not 'NHWC'"),
        (cnn, {"device": "tpu9"}, "unknown device 'tpu9'; valid: auto, cpu, cuda"),
        (Subclassed, {}, r"does not say what images it takes: give input_shape="),
        (lambda: keras.Sequential([keras.Input((9,)), layers.Dense(5)]), {}, "must take images"),
        (lambda: keras.Sequential([keras.Input((12, 12, 3)), layers.Conv2D(5, 3)]), {}, "one row of class scores"),
        (
            lambda: keras.Model(two := [keras.Input((1,)), keras.Input((1,))], layers.Add()(two)),
            {},
            "one input .*, not 2",
        ),
    ],
)
def test_bad_models_and_options_are_named(build: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        wrapped(build(), **options)


def test_another_backend_is_another_process() -> None:
    others = {"tensorflow": KerasTensorflowClassifier, "torch": KerasTorchClassifier, "jax": KerasJaxClassifier}
    del others[BACKEND]
    for other, kind in others.items():
        with pytest.raises(InputError, match=rf"runs on {BACKEND} and .* on {other}: .* KERAS_BACKEND={other}"):
            kind(cnn())


def test_a_backend_that_sparring_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras.backend, "backend", lambda: "openvino")
    with pytest.raises(InputError, match=r"Keras runs on openvino in this process.* set KERAS_BACKEND"):
        keras_classifier(object())


REBUILT = """
from sparring.adapters.frameworks.coexistence import guard
guard()
import keras
from sparring.adapters import wrap

def build():
    keras.utils.set_random_seed(0)
    net = [keras.layers.Conv2D(4, 3, activation="relu"), keras.layers.Flatten(), keras.layers.Dense(5)]
    return wrap(keras.Sequential([keras.Input((8, 8, 3)), *net]), device="cpu")
"""


def test_the_same_model_in_a_fresh_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rebuilt_keras.py").write_text(REBUILT)
    monkeypatch.syspath_prepend(tmp_path)
    check_rebuilds("rebuilt_keras:build")


@pytest.mark.skipif(BACKEND != "tensorflow", reason="TensorFlow's own estimators need Keras on TensorFlow")
def test_tensorflow_estimators_of_the_libraries_get_the_right_gradients() -> None:
    import foolbox
    import tensorflow as tf
    from art.estimators.classification import TensorFlowV2Classifier

    classifier, counter, x = case("rgb")[1], Counter(), images()
    function = classifier.tensorflow_function(counter)
    one_hot = np.eye(CLASSES, dtype=np.float32)[[2] * len(x)]
    loss = tf.keras.losses.CategoricalCrossentropy(from_logits=True)
    art = TensorFlowV2Classifier(function, CLASSES, classifier.input_shape, loss_object=loss)
    np.testing.assert_allclose(art.predict(x), classifier.logits(x), rtol=1e-6)
    assert counter == Counter(4, 0)
    np.testing.assert_allclose(art.class_gradient(x, label=2)[:, 0], classifier.vjp(x, one_hot), rtol=1e-5)
    model = foolbox.TensorFlowModel(function, bounds=(0, 1), device="/CPU:0")
    attack = foolbox.attacks.LinfPGD(rel_stepsize=0.2, steps=5, random_start=False)
    counter.forwards = counter.backwards = 0
    _, adversarial, _ = attack(model, tf.constant(x), tf.argmax(classifier.logits(x), 1), epsilons=0.1)
    assert np.abs(adversarial.numpy() - x).max() == pytest.approx(0.1, abs=1e-6)
    assert counter.backwards == 5 * len(x)


@pytest.mark.skipif("SPARRING_INNER_TEST" in os.environ, reason="this is the run on another backend")
def test_all_of_this_on_torch() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", __file__, "-n0", "-p", "no:cacheprovider"],
        env={**os.environ, "KERAS_BACKEND": "torch", "SPARRING_INNER_TEST": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:]
