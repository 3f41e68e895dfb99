"""Files of real exporters: the evaluator's scores are ONNX Runtime's, its gradient that of the model that was exported."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from models_for_tests import labels
from onnx_zoo import BLACK_BOXES, ZOO, digits, images, path_of, sklearn_file, source_of

from sparring.adapters import attack, wrap
from sparring.adapters.conformance.classifiers import (
    check_batch_independence,
    check_vjp_batch_independence,
    check_vjp_is_the_derivative,
    sample_cotangent,
)
from sparring.adapters.errors import NotSupported
from sparring.adapters.onnx.classifier import OnnxClassifier, OnnxOutputs
from sparring.adapters.onnx.graph import evaluate, read_graph
from sparring.adapters.protocol import Differentiable


@lru_cache
def opened(name: str) -> Any:
    return wrap(path_of(name), device="cpu", **source_of(name).options)


@pytest.mark.parametrize("name", ZOO)
def test_the_graph_evaluates_to_what_onnx_runtime_gives(name: str) -> None:
    graph = read_graph(path_of(name))
    session = onnxruntime.InferenceSession(str(path_of(name)), providers=["CPUExecutionProvider"])
    (only,) = session.get_inputs()
    floats = [output.name for output in session.get_outputs() if output.type == "tensor(float)"]
    for n in (1, 6):
        x = images(tuple(only.shape[1:]), n)
        values = evaluate(graph, {only.name: torch.from_numpy(x)}, floats)
        for key, expected in zip(floats, session.run(floats, {only.name: x}), strict=True):
            assert values[key].dtype == torch.float32
            off = np.abs(values[key].numpy() - expected).max() / max(1.0, np.abs(expected).max())
            assert off <= 1e-5, f"{key}: {off:.1e}"


@pytest.mark.parametrize("name", ZOO)
def test_the_gradient_is_the_slope_of_onnx_runtimes_scores(name: str) -> None:
    classifier = opened(name)
    assert isinstance(classifier, OnnxClassifier)
    for check in (check_vjp_is_the_derivative, check_vjp_batch_independence, check_batch_independence):
        check(classifier)


@pytest.mark.parametrize("name", [name for name in ZOO if not name.startswith("sklearn")])
def test_the_gradient_is_that_of_the_model_that_was_exported(name: str) -> None:
    source = source_of(name).classifier()
    x = images(opened(name).input_shape)
    cotangent = sample_cotangent(opened(name))
    np.testing.assert_allclose(opened(name).logits(x), source.logits(x), atol=1e-4)
    expected = source.vjp(x, cotangent)
    assert np.abs(opened(name).vjp(x, cotangent) - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("name", [name for name in [*ZOO, *BLACK_BOXES] if name.startswith("sklearn")])
def test_rows_of_pixels_from_scikit_learn(name: str) -> None:
    x, y = digits()
    model = source_of(name).classifier()
    expected = model.predict_proba(x[600:].reshape(len(x) - 600, -1))
    scores = np.exp(opened(name).logits(x[600:]))
    np.testing.assert_allclose(scores / scores.sum(axis=1, keepdims=True), expected, atol=1e-5)
    assert (scores.argmax(axis=1) == y[600:]).mean() > 0.8


def _bayes() -> Any:
    from sklearn.naive_bayes import GaussianNB

    return GaussianNB(var_smoothing=1e-4)


def _steep() -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=1e6, max_iter=300)


@pytest.mark.parametrize("build", [_bayes, _steep])
def test_sure_probabilities_of_scikit_learn_keep_their_gradient(build: Any, tmp_path: Path) -> None:
    """A softmax inside an operator, or written as an exponential: the logarithm of 0 and of 1 would have none."""
    source = sklearn_file(build)
    source.write(tmp_path / "sure.onnx")
    classifier = OnnxClassifier(tmp_path / "sure.onnx", **source.options)
    model, x = source.classifier(), digits()[0][600:610]
    assert (model.predict_proba(x.reshape(10, -1)).max(axis=1) == 1).any()
    cotangent = np.zeros((10, 10), np.float32)
    cotangent[np.arange(10), classifier.logits(x).argmax(axis=1)] = 1
    cotangent -= 0.1
    gradient = classifier.vjp(x, cotangent)
    assert (np.abs(gradient).max(axis=(1, 2, 3)) > 0).all()

    def slope(z: np.ndarray) -> np.ndarray:
        return (model.predict_joint_log_proba(z) if build is _bayes else model.decision_function(z)) * cotangent

    step = 1e-4 * np.random.default_rng(0).normal(size=x.shape)
    rows, move = x.reshape(10, -1).astype(np.float64), step.reshape(10, -1)
    expected = (slope(rows + move) - slope(rows - move)).sum(axis=1) / 2
    np.testing.assert_allclose((gradient * step).sum(axis=(1, 2, 3)), expected, rtol=1e-3, atol=1e-4)


STAIRS = {
    "quantized dynamically": "DynamicQuantizeLinear",
    "quantized, QDQ": "QuantizeLinear",
    "quantized, QOperator": "QuantizeLinear",
    "sklearn forest": "TreeEnsembleClassifier",
}


@pytest.mark.parametrize("name", BLACK_BOXES)
def test_a_staircase_is_a_black_box_that_says_why(name: str) -> None:
    classifier = opened(name)
    assert type(classifier) is OnnxOutputs
    assert not isinstance(classifier, Differentiable)
    file, operator = re.escape(path_of(name).name), STAIRS[name]
    message = rf"^needs gradients, and {file} has the operator {operator} \(node '.+'\), whose values are steps"
    assert re.search(message, classifier.lacks["gradients"])
    with pytest.raises(NotSupported, match=message):
        OnnxClassifier(path_of(name), **source_of(name).options)
    x = images(classifier.input_shape)
    with pytest.raises(NotSupported, match="pgd needs gradients"):
        attack(classifier, x, labels(classifier, x), "pgd", library="foolbox", norm="linf", eps=0.1)
    result = attack(
        classifier, x, labels(classifier, x), "square", library="torchattacks", norm="linf", eps=0.3, queries=40
    )
    assert result.samples["success"].any()
