"""Graphs whose gradient autograd would get wrong in silence: they are refused, or say so when it happens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from sparring.adapters import attack, wrap
from sparring.adapters.errors import NotSupported
from sparring.adapters.protocol import Differentiable, lacks

RNG = np.random.default_rng(0)


def saved(path: Path, nodes: list, **constants: np.ndarray) -> Path:
    """A file of images (N, 1, 4, 4) -> ``logits`` (N, 16)."""
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 1, 4, 4])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 16])
    values = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    model = helper.make_model(
        helper.make_graph(nodes, "hazard", [images], [logits], values),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )
    onnx.save(model, path)
    return path


def scatter(tmp_path: Path, places: list[int]) -> Path:
    nodes = [
        helper.make_node("Flatten", ["images"], ["flat"], axis=1),
        helper.make_node("Transpose", ["flat"], ["pixels"], perm=[1, 0]),
        helper.make_node("Shape", ["pixels"], ["shape"]),
        helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
        helper.make_node("ScatterND", ["zeros", "places", "pixels"], ["moved"], name="moves"),
        helper.make_node("Transpose", ["moved"], ["logits"], perm=[1, 0]),
    ]
    return saved(tmp_path / "scatter.onnx", nodes, places=np.asarray(places, np.int64)[:, None])


def test_updates_of_one_place_have_no_gradient_that_anyone_could_name(tmp_path: Path) -> None:
    classifier = wrap(scatter(tmp_path, [0, 0, *range(2, 16)]))
    assert not isinstance(classifier, Differentiable)
    assert "several updates of one place" in lacks(classifier)["gradients"]


def test_updates_of_several_places_have(tmp_path: Path) -> None:
    order = RNG.permutation(16)
    classifier = wrap(scatter(tmp_path, list(order)))
    assert isinstance(classifier, Differentiable)
    gradient = classifier.vjp(np.zeros((1, 1, 4, 4), np.float32), np.arange(16, dtype=np.float32)[None])
    np.testing.assert_array_equal(gradient.ravel(), order)


def test_a_gradient_that_is_nan_is_said(tmp_path: Path) -> None:
    """Where over a branch that isn't taken: its infinite slope times zero is NaN, at a pixel of 0 alone."""
    nodes = [
        helper.make_node("Flatten", ["images"], ["flat"], axis=1),
        helper.make_node("Pow", ["flat", "half"], ["root"]),
        helper.make_node("Greater", ["flat", "tiny"], ["large"]),
        helper.make_node("Where", ["large", "root", "flat"], ["curved"]),
        helper.make_node("MatMul", ["curved", "weights"], ["logits"]),
    ]
    path = saved(
        tmp_path / "where.onnx",
        nodes,
        half=np.float32(0.5),
        tiny=np.float32(0.01),
        weights=RNG.normal(size=(16, 16)).astype(np.float32),
    )
    classifier = wrap(path)
    assert isinstance(classifier, Differentiable)
    x = RNG.uniform(0.3, 0.7, (3, 1, 4, 4)).astype(np.float32)
    assert np.isfinite(classifier.vjp(x, np.ones((3, 16), np.float32))).all()
    x[1, 0, 2, 2] = 0
    with pytest.raises(NotSupported, match=r"where\.onnx has a gradient that is NaN or infinite for 1 of 3 images"):
        classifier.vjp(x, np.ones((3, 16), np.float32))
    y = classifier.logits(x).argmax(axis=1)
    with pytest.raises(NotSupported, match="NaN or infinite for 1 of 3 images"):
        attack(classifier, x, y, "fgsm", library="torchattacks", eps=0.1)
