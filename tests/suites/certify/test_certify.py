"""A certificate: its numbers, which images it sets apart, its exit code, and what it says of a wrong conversion."""

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
from models_for_tests import linear
from onnx import helper
from torch import nn
from typer.testing import CliRunner

from sparring.adapters import InputError
from sparring.adapters.frameworks.pytorch import TorchClassifier
from sparring.models.data import datasets
from sparring.models.layers.layer import Layer
from sparring.models.spec import DataSpec
from sparring.suites.certify import comparison, measures
from sparring.suites.certify.certificate import Certificate, GradientsCompared
from sparring.suites.certify.certify import certify
from sparring.suites.cli.app import app
from sparring.suites.workers.local import LocalExecutor

# --- the numbers


def test_logits_compared_with_ties_set_apart() -> None:
    a = np.array([[1, 0, 0], [2, 2.00005, 0], [0, 3, 1], [0, 0, 4]], np.float32)
    b = np.array([[1, 0.5, 0], [2.00005, 2, 0], [0, 1, 3], [0, 0, 4]], np.float32)
    compared = comparison.compare_logits(a, b)
    assert compared.max_abs == pytest.approx(2)
    assert compared.mean_abs == pytest.approx((0.5 + 1e-4 + 4) / 12, rel=1e-4)
    assert (compared.ties, compared.disagreeing, compared.scale) == (1, (2,), 4.0)
    assert compared.agreement == pytest.approx(2 / 3)
    assert compared.relative == pytest.approx(0.5)
    assert comparison.reasons(comparison.compare_logits(a, a), None) == ()
    assert [text.split(" ")[0] for text in comparison.reasons(compared, None)] == ["logits", "1"]
    nan = comparison.compare_logits(a, np.full_like(a, np.nan))
    assert comparison.reasons(nan, None)


def test_cotangents_are_the_gradient_of_cross_entropy_even_where_that_underflows() -> None:
    rng = np.random.default_rng(0)
    logits, y = rng.normal(0, 3, (20, 5)).astype(np.float32), rng.integers(0, 5, 20)
    z = torch.tensor(logits, dtype=torch.float64, requires_grad=True)
    torch.nn.functional.cross_entropy(z, torch.tensor(y), reduction="sum").backward()
    assert z.grad is not None
    expected = z.grad.numpy()
    cotangents = comparison.cotangents(logits, y).astype(np.float64)
    cosines = (cotangents * expected).sum(1) / np.linalg.norm(cotangents, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosines.min() > 1 - 1e-9
    certain = comparison.cotangents(np.array([[500, 0, -1]], np.float32), np.array([0]))
    assert certain[0] == pytest.approx([-1 - np.exp(-1), 1, np.exp(-1)])


def test_gradients_compared() -> None:
    a = np.zeros((4, 1, 1, 3), np.float32)
    b = a.copy()
    a[0, 0, 0], b[0, 0, 0] = [1, 2, 3], [2, 4, 6]
    a[1, 0, 0], b[1, 0, 0] = [1, 1e-7, 0], [1, -1e-7, 0]  # the sign of what is rounding doesn't count
    a[2, 0, 0] = [1, 0, 0]  # one of the two is exactly zero; of the last both are
    compared = comparison.compare_gradients(a, b)
    assert compared.cosines == pytest.approx([1, 1, 0, 1])
    assert compared.signs == pytest.approx(4 / 5)
    assert (compared.least, compared.turned) == (0.0, (2,))
    apart = GradientsCompared(compared.cosines, compared.signs, kinks=(2,))
    assert (apart.least, apart.turned) == (pytest.approx(1), ())
    assert comparison.at_kinks([5, 7], np.full(8, 0.9), np.array([0.97, 0.99], np.float32)) == (5,)


def test_verdicts_that_flip() -> None:
    y = np.array([0, 1, 2])
    a = np.array([[2, 1, 0], [0, 1, 3], [0, 0, 1]], np.float32)
    b = np.array([[1, 2, 0], [0, 1, 3], [0, 0, 1]], np.float32)
    compared = comparison.judge("fgsm", "a", y, a, b)
    (flip,) = compared.flips
    assert (flip.image, flip.label, flip.prediction_a, flip.prediction_b) == (0, 0, 0, 1)
    assert (flip.margin_a, flip.margin_b) == (1.0, -1.0)
    assert (compared.accuracy_a, compared.accuracy_b) == (pytest.approx(2 / 3), pytest.approx(1 / 3))


class Bent(nn.Module):
    """Two pixels; the second counts only above 1/2: an image there lies at a kink."""

    def forward(self, x: Any) -> Any:
        flat = x.flatten(1)
        return torch.stack([flat[:, 0], 3 * torch.relu(flat[:, 1] - 0.5)], dim=1)


def test_a_kink_is_seen_where_there_is_one(tmp_path: Path) -> None:
    x = np.array([[0.3, 0.5], [0.3, 0.8]], np.float32).reshape(2, 1, 1, 2)
    np.save(tmp_path / "images.npy", x)
    np.save(tmp_path / "cotangents.npy", np.array([[1, 1], [1, 1]], np.float32))
    files = {"images": "images.npy", "cotangents": "cotangents.npy", "out": "kinks.npy"}
    request = {**files, "chosen": [0, 1], "allowed": [1e-6, 1e-6]}
    classifier = TorchClassifier(Bent(), input_shape=(1, 1, 2), device="cpu")
    ref: Any = None
    measures.kinks(ref, classifier, tmp_path, request, lambda done, total, what: None)
    own = np.load(tmp_path / "kinks.npy")
    assert own == pytest.approx([1 / np.sqrt(10), 1])
    assert comparison.at_kinks([0, 1], np.array([0.4, 0.4]), own) == (0,)


def test_layers_pass_through_files(tmp_path: Path) -> None:
    classifier, _ = linear(3)
    x = np.random.default_rng(0).random((5, 1, 6, 6), np.float32)
    np.save(tmp_path / "x.npy", x)

    class Ref:
        members = ()
        options: dict[str, Any] = {}  # noqa: RUF012

    ref: Any = Ref()
    original = measures.open_network
    try:
        measures.open_network = lambda ref: classifier.network  # type: ignore[assignment]
        answer = measures.layers(ref, classifier, tmp_path, {"images": "x.npy", "out": "l.npz"}, lambda *_: None)
    finally:
        measures.open_network = original
    read: list[Layer] = measures.read_layers(json.loads(json.dumps(answer)), tmp_path / "l.npz")
    assert [layer.kind for layer in read] == ["images", "Flatten", "Linear", "output"]
    assert read[2].takes == (1,)
    assert read[2].facts["weight"].shape == (3, 36)
    assert np.array_equal(read[2].values, classifier.logits(x))


# --- the whole

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
