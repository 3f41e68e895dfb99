"""A certificate of two models: it passes an export, names what a wrong conversion did, and refuses bad input."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from torch import nn
from typer.testing import CliRunner

from sparring.adapters import InputError
from sparring.models.data import datasets
from sparring.models.spec import DataSpec
from sparring.suites.certify.certificate import Certificate
from sparring.suites.certify.certify import certify
from sparring.suites.cli.app import app
from sparring.suites.workers.local import LocalExecutor

SUITE = """\
name: mine
data: {name: digits, samples: 30}
models:
  - {name: net, architecture: cnn, framework: torch, train: {epochs: 1, samples: 300}}
  - {name: file, export: net}
attacks: [{attack: fgsm, eps: 0.1}]
"""


def trained() -> nn.Sequential:
    """A small network that reads most of the digits."""
    data = datasets.load_train(DataSpec.model_validate({"name": "digits"}), base=Path())
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(216, 10)
    )
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(25):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(torch.tensor(data.x[:500])), torch.tensor(data.y[:500])).backward()
        optimizer.step()
    return net


def written(net: nn.Sequential, path: Path) -> None:
    """The network as an ONNX file, node by node."""
    nodes, weights, value = [], [], "images"
    for i, layer in enumerate(net):
        kind, extra = type(layer).__name__, {}
        names = [value]
        for key, tensor in layer.named_parameters():
            weights.append(onnx.numpy_helper.from_array(tensor.detach().numpy(), f"{i}.{key}"))
            names.append(weights[-1].name)
        if kind == "Conv2d":
            extra = {"pads": [*layer.padding, *layer.padding]}
        elif kind == "Linear":
            extra = {"transB": 1}
        operator = {"Conv2d": "Conv", "ReLU": "Relu", "Flatten": "Flatten", "Linear": "Gemm"}[kind]
        value = f"value{i}"
        nodes.append(helper.make_node(operator, names, [value], name=f"{operator.lower()}-{i}", **extra))
    takes = helper.make_tensor_value_info("images", 1, ["n", 1, 8, 8])
    graph = helper.make_graph(nodes, "net", [takes], [helper.make_tensor_value_info(value, 1, ["n", 10])], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


@pytest.fixture(scope="module")
def executor() -> Iterator[LocalExecutor]:
    shared = LocalExecutor("cpu")
    yield shared
    shared.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working directory, with a suite, a file, and copies of the file with one mistake each."""
    path = tmp_path_factory.mktemp("certify")
    written(trained(), path / "net.onnx")
    (path / "mine.yaml").write_text(SUITE)
    for name in ("probabilities", "twice", "turned"):
        model = onnx.load(path / "net.onnx")
        for step in range({"probabilities": 1, "twice": 2, "turned": 0}[name]):
            output = model.graph.output[0]
            probabilities = f"softmax-{step + 1}"
            model.graph.node.append(helper.make_node("Softmax", [output.name], [probabilities], name=probabilities))
            output.name = probabilities
        if name == "turned":
            filters = next(tensor for tensor in model.graph.initializer if list(tensor.dims) == [6, 4, 3, 3])
            array = onnx.numpy_helper.to_array(filters)[[1, 0, 2, 3, 4, 5]]
            filters.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(array), filters.name))
        onnx.save(model, path / f"{name}.onnx")
    before = Path.cwd()
    os.chdir(path)
    yield path
    os.chdir(before)


def certified(a: str, b: str, executor: LocalExecutor, **options: Any) -> Certificate:
    return certify(a, b, samples=60, attack_samples=20, device="cpu", executor=executor, **options)


def test_a_network_and_its_export_are_one_function(folder: Path, executor: LocalExecutor) -> None:
    certificate = certified("net", "file", executor, suite="mine.yaml")
    content = json.loads(json.dumps(certificate.to_json()))
    assert (content["passed"], content["first_difference"], content["reasons"]) == (True, None, [])
    assert content["logits_max_abs"] < 1e-5
    assert content["gradient_cosine_min"] > 0.99999
    assert (content["argmax_agreement"], content["n"], content["verdict_flips"]) == (1.0, 60, 0)
    attacks = [(each["attack"], each["made_on"]) for each in content["attacks"]]
    assert attacks == [("fgsm", "a"), ("pgd", "a"), ("fgsm", "b"), ("pgd", "b")]
    assert (content["a"]["framework"], content["b"]["framework"]) == ("torch", "onnx")
    assert {"torch", "onnxruntime"} <= set(content["b"]["versions"])
    assert content["data"]["eps"] == 0.1
    # PGD is not weaker than FGSM on a network that was trained
    assert content["attacks"][1]["accuracy_a"] <= content["attacks"][0]["accuracy_a"] < 1


def test_two_swapped_filters_are_found_and_the_images_that_flip_are_listed(
    folder: Path, executor: LocalExecutor
) -> None:
    certificate = certified("net.onnx", "turned.onnx", executor, eps=0.05)
    content = certificate.to_json()
    assert content["passed"] is False
    assert (content["first_difference"]["layer_a"], content["first_difference"]["layer_b"]) == ("conv-2", "conv-2")
    assert content["first_difference"]["why"] == "its filters are in another order: 0 and 1 are swapped"
    assert content["first_difference"]["max_abs"] > 0.01
    assert content["verdict_flips"] == len(content["flips"]) > 0
    for flip in content["flips"]:
        right = [flip[key] == flip["label"] for key in ("prediction_a", "prediction_b")]
        assert right[0] != right[1]
        assert right == [flip["margin_a"] > 0, flip["margin_b"] > 0]
        assert flip["image"] < 20
    assert len(content["reasons"]) >= 2


@pytest.mark.parametrize(
    ("a", "b", "layer", "why"),
    [
        ("net.onnx", "probabilities.onnx", "softmax-1", "what B gives is the softmax of what A gives"),
        ("net.onnx", "twice.onnx", "softmax-1", "what B gives is the softmax of what A gives, taken twice"),
        ("{onnx: probabilities.onnx, output: probabilities}", "twice.onnx", "softmax-2", "taken twice"),
    ],
)
def test_a_softmax_too_many_is_a_finding(
    folder: Path, executor: LocalExecutor, a: str, b: str, layer: str, why: str
) -> None:
    certificate = certified(a, b, executor)
    assert not certificate.passed
    assert certificate.first_difference is not None
    assert (certificate.first_difference.layer_a, certificate.first_difference.layer_b) == ("output", layer)
    assert why in certificate.first_difference.why


def test_probabilities_on_both_sides_are_compared_by_their_logarithms(folder: Path, executor: LocalExecutor) -> None:
    certificate = certified("probabilities.onnx", "{onnx: net.onnx}", executor)
    assert not certificate.passed  # nobody said so: the one gives probabilities, the other logits
    assert "gives probabilities" in certificate.notes[0]
    declared = certified("{onnx: probabilities.onnx, output: probabilities}", "net.onnx", executor)
    assert (declared.passed, declared.compared) == (True, "log-probabilities")


def test_other_classes_and_other_images_are_bad_input(folder: Path, executor: LocalExecutor) -> None:
    for name, shape, classes in (("few", ["n", 1, 8, 8], 11), ("wide", ["n", 1, 9, 9], 10)):
        pixels = int(np.prod(shape[1:]))
        weight = onnx.numpy_helper.from_array(np.eye(pixels, classes, dtype=np.float32), "w")
        nodes = [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("MatMul", ["f", "w"], ["y"])]
        inputs = [helper.make_tensor_value_info("x", 1, shape)]
        outputs = [helper.make_tensor_value_info("y", 1, ["n", classes])]
        graph = helper.make_graph(nodes, "g", inputs, outputs, [weight])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        onnx.save(model, folder / f"{name}.onnx")
    with pytest.raises(InputError, match=r"net.onnx has 10 classes, few.onnx 11: they can't be compared"):
        certified("net.onnx", "few.onnx", executor)
    with pytest.raises(InputError, match=r"net.onnx takes images of 1 x 8 x 8, wide.onnx of 1 x 9 x 9"):
        certified("net.onnx", "wide.onnx", executor)


def test_the_command(folder: Path) -> None:
    words = ["certify", "net.onnx", "turned.onnx", "--samples", "40", "--attack-samples", "10", "--eps", "16/255"]
    result = CliRunner().invoke(app, [*words, "--json", "c.json", "--device", "cpu"])
    assert result.exit_code == 1, result.output
    assert "Not the same function." in result.output
    assert "First difference: " in result.output
    content = json.loads((folder / "c.json").read_text())
    assert (content["passed"], content["data"]["eps"]) == (False, pytest.approx(16 / 255))
    wrong = CliRunner().invoke(app, [*words, "--json", "no/such/folder/c.json"])
    assert isinstance(wrong.exception, InputError)
