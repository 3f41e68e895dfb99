"""Keras on JAX: what is its own and, in one process whose Keras is on JAX, all of ``test_keras.py``; and a suite."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparring.adapters.conformance.classifiers import sample_cotangent, sample_images
from sparring.adapters.errors import InputError, NotSupported
from sparring.adapters.protocol import Differentiable
from sparring.suites import run

ON_JAX = os.environ.get("KERAS_BACKEND") == "jax"
installed = pytest.mark.skipif(
    importlib.util.find_spec("jax") is None, reason="JAX is not installed: pip install 'sparring[jax]'"
)
inside = pytest.mark.skipif(not ON_JAX, reason="runs in the process that test_on_jax starts")
outside = pytest.mark.skipif(ON_JAX, reason="starts a process on JAX, and this is one")


@outside
@installed
def test_on_jax() -> None:
    laws = Path(__file__).with_name("test_keras.py")
    command = [sys.executable, "-m", "pytest", __file__, str(laws), "-n0", "-p", "no:cacheprovider"]
    # that a fresh process gives the same numbers, the suite's test shows by training in two
    done = subprocess.run(
        [*command, "-k", "not fresh_process"],
        env={**os.environ, "KERAS_BACKEND": "jax", "SPARRING_INNER_TEST": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:]


@outside
def test_without_jax_the_message_has_the_line_that_installs_it() -> None:
    code = (
        "import sys; sys.modules['jax'] = None\n"
        "from sparring.models.networks.build import use_keras\n"
        "try:\n    use_keras('keras-jax')\n"
        "except Exception as error:\n    print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == (
        "InputError Keras on JAX needs the package jax, which is not installed. "
        "Install it with: pip install 'sparring[jax]'\n"
    )


SUITE = """
name: jax
data: {name: digits, split: test, samples: 12, stratified: true}
models: [{name: net, architecture: dnn, framework: keras-jax, train: {epochs: 3}}]
libraries: [art, foolbox, torchattacks]
attacks:
  - {attack: pgd, eps: 0.1, eps_step: 0.02, steps: 5, random_start: false}
  - {attack: fgsm, eps: 0.1}
  - {attack: deepfool, steps: 10, overshoot: 0.02}
  - {attack: square, eps: 0.2, queries: 20}
"""


@outside
@installed
def test_a_suite_with_keras_on_jax_and_the_same_numbers_from_another_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained and attacked by every library; and anew in other processes, with a part of the attacks."""
    part = SUITE[: SUITE.index("  - {attack: fgsm")].replace("[art, foolbox, torchattacks]", "[torchattacks]")
    frames = []
    for name, text in (("whole", SUITE), ("part", part)):
        monkeypatch.setenv("SPARRING_CACHE", str(tmp_path / name / "cache"))
        path = tmp_path / f"{name}.yaml"
        path.write_text(text)
        frames.append(run(path, out=tmp_path / name).frame)
    whole, again = frames
    assert set(whole["framework"]) == {"keras-jax"}
    assert set(whole["route"]) == {"bridged"}
    found = whole.set_index(["attack", "library"])["status"].to_dict()
    assert found.pop(("square", "foolbox")) == "unsupported"
    assert len(found) == 11
    assert set(found.values()) == {"done"}
    assert whole["clean_accuracy"].iloc[0] > 0.5
    pgd = whole[whole["attack"] == "pgd"]
    # the three libraries' images are one another's: each saw the same model, and the same gradients
    images = [_stored(tmp_path / "whole", cell)["x_adv"] for cell in pgd["cell_id"]]
    assert max(float(np.abs(images[0] - other).max()) for other in images[1:]) <= 1e-6
    (cell,) = again["cell_id"]
    assert cell in set(pgd["cell_id"]), "the weights of the second training are others"
    first, second = _stored(tmp_path / "whole", cell), _stored(tmp_path / "part", cell)
    assert all(np.array_equal(first[key], second[key]) for key in first)


def _stored(folder: Path, cell: str) -> dict[str, np.ndarray]:
    with np.load(folder / "cells" / cell / "images.npz", allow_pickle=False) as stored:
        return dict(stored)


def twins(name: str) -> tuple[Any, Any]:
    """The same weights as a Keras model and as a torch module: images (N, 1, 12, 12), the Keras model's channels last.

    Written out by hand, so that nothing of ours stands on both sides of the comparison.
    """
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    if name == "cnn":
        norm = layers.BatchNormalization(
            gamma_initializer=keras.initializers.RandomUniform(0.5, 2),
            moving_mean_initializer=keras.initializers.RandomUniform(-1, 1),
            moving_variance_initializer=keras.initializers.RandomUniform(0.5, 2),
        )
        body = [layers.Conv2D(6, 3), norm, layers.ReLU(), layers.MaxPool2D(2), layers.Dropout(0.5), layers.Flatten()]
    elif name == "dnn":
        body = [layers.Flatten(), layers.Dense(32, activation="tanh"), layers.Dropout(0.5)]
    else:
        body = [layers.Reshape((12, 12)), layers.LSTM(16, bias_initializer="uniform")]
    model = keras.Sequential([keras.Input((12, 12, 1)), *body, layers.Dense(5, bias_initializer="uniform")])
    return model, {"cnn": _torch_cnn, "dnn": _torch_dnn, "rnn": _torch_rnn}[name]([_tensor(w) for w in model.weights])


def _tensor(weight: Any) -> Any:
    import torch

    return torch.tensor(np.asarray(weight.value))


def _torch_cnn(weights: list[Any]) -> Any:
    from torch.nn import functional

    kernel, bias, gamma, beta, mean, variance, *_, dense, last = weights

    def forward(x: Any) -> Any:
        x = functional.conv2d(x, kernel.permute(3, 2, 0, 1), bias)
        x = functional.batch_norm(x, mean, variance, gamma, beta, eps=1e-3)
        return functional.max_pool2d(x.relu(), 2).permute(0, 2, 3, 1).flatten(1) @ dense + last

    return forward


def _torch_dnn(weights: list[Any]) -> Any:
    hidden, bias, *_, dense, last = weights
    return lambda x: (x.flatten(1) @ hidden + bias).tanh() @ dense + last


def _torch_rnn(weights: list[Any]) -> Any:
    import torch

    kernel, recurrent, bias, *_, dense, last = weights

    def forward(x: Any) -> Any:
        h = c = torch.zeros((len(x), 16))
        for row in x[:, 0].unbind(1):
            i, f, g, o = (row @ kernel + h @ recurrent + bias).chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        return h @ dense + last

    return forward


@inside
@pytest.mark.parametrize("name", ["cnn", "dnn", "rnn"])
def test_the_same_weights_in_torch_give_the_same_numbers(name: str) -> None:
    import torch

    from sparring.adapters import wrap

    model, forward = twins(name)
    classifier: Any = wrap(model, input_range=(-1, 1), device="cpu")
    x, cotangent = sample_images(classifier, 11), sample_cotangent(classifier, 11)
    images = torch.tensor(x, requires_grad=True)
    scores = forward(images * 2 - 1)
    (gradient,) = torch.autograd.grad(scores, images, torch.tensor(cotangent))
    np.testing.assert_allclose(classifier.logits(x), scores.detach().numpy(), atol=1e-5)
    np.testing.assert_allclose(classifier.vjp(x, cotangent), gradient.numpy(), atol=1e-5)


@inside
def test_many_sizes_of_batch_are_few_programs_and_one_set_of_numbers() -> None:
    import jax.monitoring

    from sparring.adapters import wrap

    classifier: Any = wrap(twins("dnn")[0], device="cpu")
    x, cotangent = sample_images(classifier, 75), sample_cotangent(classifier, 75)
    logits, gradient = classifier.logits(x), classifier.vjp(x, cotangent)
    compiled: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(lambda event, *_, **__: compiled.append(event))
    for n in range(1, 75):
        np.testing.assert_allclose(classifier.logits(x[:n]), logits[:n], atol=1e-6)
        np.testing.assert_allclose(classifier.vjp(x[:n], cotangent[:n]), gradient[:n], atol=1e-6)
    programs = [event for event in compiled if event.endswith("backend_compile_duration")]
    assert 1 <= len(programs) <= 4, "images at once are 1, 8 or 32, forwards and backwards, and some were compiled"


@inside
def test_weights_that_change_later_are_seen_and_freezing_layers_changes_nothing() -> None:
    from sparring.adapters import wrap

    model = twins("dnn")[0]
    classifier: Any = wrap(model, device="cpu")
    assert isinstance(classifier, Differentiable)
    x, cotangent = sample_images(classifier), sample_cotangent(classifier)
    before, gradient = classifier.logits(x), classifier.vjp(x, cotangent)
    model.layers[1].trainable = False
    assert np.array_equal(classifier.logits(x), before)
    kernel, bias = model.layers[-1].get_weights()
    model.layers[-1].set_weights([2 * kernel, 2 * bias])
    np.testing.assert_allclose(classifier.logits(x), 2 * before, rtol=1e-5)
    np.testing.assert_allclose(classifier.vjp(x, cotangent), 2 * gradient, rtol=1e-5)


@inside
def test_what_a_layer_draws_leaves_its_generator_alone() -> None:
    import keras

    from sparring.adapters import wrap

    class Noisy(keras.layers.Layer):  # type: ignore[misc]
        """Draws at every call, also outside of training."""

        def __init__(self) -> None:
            super().__init__()
            self.generator = keras.random.SeedGenerator(0)

        def call(self, x: Any) -> Any:
            return x + keras.random.normal(keras.ops.shape(x), seed=self.generator)

    model = keras.Sequential([keras.Input((8, 8, 1)), Noisy(), keras.layers.Flatten(), keras.layers.Dense(5)])
    classifier: Any = wrap(model, device="cpu")
    state = np.asarray(model.layers[0].generator.state.value).copy()
    x = sample_images(classifier)
    assert np.array_equal(classifier.logits(x), classifier.logits(x))
    assert np.array_equal(np.asarray(model.layers[0].generator.state.value), state)


@inside
def test_a_model_that_jax_can_not_differentiate() -> None:
    import keras
    from keras import ops

    from sparring.adapters import wrap

    class Doubles(keras.layers.Layer):  # type: ignore[misc]
        """A loop whose length the images decide."""

        def call(self, x: Any) -> Any:
            return ops.while_loop(lambda y: ops.max(y) < 10, lambda y: (2 * y,), (x,))[0]

    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(5), Doubles()])
    model.layers[1].set_weights([np.ones((64, 5), np.float32), np.ones(5, np.float32)])
    classifier: Any = wrap(model, device="cpu")
    x = sample_images(classifier)
    assert (classifier.logits(x).max(axis=1) >= 10).all()
    with pytest.raises(NotSupported, match="needs gradients; JAX can't differentiate the Keras model: Reverse-mode"):
        classifier.vjp(x, sample_cotangent(classifier))


@inside
def test_a_device_that_is_not_there() -> None:
    from sparring.adapters import wrap

    model = twins("dnn")[0]
    assert wrap(model, device="cpu:0").device == "cpu"  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=r"device 'cuda:99' is not there: JAX sees \d+ CUDA devices"):
        wrap(model, device="cuda:99")
