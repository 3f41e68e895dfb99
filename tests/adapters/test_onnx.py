"""Files as the exporters write them today; ``torch.onnx`` and Keras are only what they come from."""

from __future__ import annotations

import sys
import warnings
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sparring.adapters.conformance import CLASSIFIER_CHECKS, Check, check_rebuilds, checks_for
from sparring.adapters.errors import InputError
from sparring.adapters.onnx import OnnxClassifier
from sparring.adapters.protocol import Differentiable
from sparring.adapters.pytorch import TorchClassifier

CLASSES = 5
CAFFE: dict[str, Any] = {"input_range": (0, 255), "mean": (104, 117, 123), "std": (58, 57, 56), "channel_order": "bgr"}
_temporary = TemporaryDirectory()
FOLDER = Path(_temporary.name)


def cnn(channels: int = 3) -> nn.Module:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(8)
    with torch.no_grad():
        norm.running_mean.uniform_(-1, 1)
        norm.running_var.uniform_(0.5, 2)
    head = nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(200, CLASSES))
    return nn.Sequential(nn.Conv2d(channels, 8, 3), norm, nn.ReLU(), nn.Dropout(0.5), head).eval()


class ChannelsLast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = cnn()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.permute(0, 3, 1, 2))


class TwoInputs(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return (x + y).flatten(1)


class TwoOutputs(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.flatten(1), 2 * x.flatten(1)


def dense(*more: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(432, CLASSES), *more).eval()


def exported(name: str, module: nn.Module, *inputs: Tensor, dynamic: bool = True) -> Path:
    path = FOLDER / f"{name}.onnx"
    batch = ({0: torch.export.Dim("batch")},) * len(inputs) if dynamic else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, inputs, path, dynamo=True, external_data=False, dynamic_shapes=batch, verbose=False)
    return path


def batch(n: int = 2, channels: int = 3) -> Tensor:
    return torch.from_numpy(images(n, channels))


def images(n: int = 4, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).random((n, channels, 12, 12), np.float32)


def from_keras(name: str) -> Path:
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    body = {
        "keras cnn": [layers.Conv2D(8, 3, activation="relu"), layers.BatchNormalization(), layers.Flatten()],
        "keras lstm": [layers.Reshape((12, 36)), layers.LSTM(16)],
    }[name]
    model = keras.Sequential([keras.Input((12, 12, 3)), *body, layers.Dense(CLASSES)])
    model(images().transpose(0, 2, 3, 1))
    path = FOLDER / f"{name}.onnx"
    model.export(path, format="onnx", verbose=False)
    return path


CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "rgb": (lambda: exported("rgb", cnn(), batch()), {}),
    "grey, normalised": (lambda: exported("grey", cnn(1), batch(2, 1)), {"mean": (0.1307,), "std": (0.3081,)}),
    "caffe, channels last": (lambda: exported("last", ChannelsLast(), batch().permute(0, 2, 3, 1)), CAFFE),
    "batches of one": (lambda: exported("one", cnn(), batch(1), dynamic=False), {}),
    "batches of four": (lambda: exported("four", cnn(), batch(4), dynamic=False), {}),
    "float64, probabilities": (
        lambda: exported("double", dense(nn.Softmax(1)).double(), batch().double()),
        {"output": "probabilities"},
    ),
    "keras cnn": (lambda: from_keras("keras cnn"), {}),
    "keras lstm": (lambda: from_keras("keras lstm"), {}),
}


@lru_cache
def case(name: str) -> OnnxClassifier:
    build, options = CASES[name]
    return OnnxClassifier(build(), device="cpu", **options)


@pytest.mark.parametrize("check", CLASSIFIER_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", CASES)
def test_laws(name: str, check: Check) -> None:
    check(case(name))


def test_the_same_file_in_a_fresh_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = f"from sparring.adapters import wrap\n\ndef build():\n    return wrap({case('rgb').path!r}, device='cpu')\n"
    (tmp_path / "rebuilt_onnx.py").write_text(build)
    monkeypatch.syspath_prepend(tmp_path)
    check_rebuilds("rebuilt_onnx:build")


def test_an_onnx_file_has_no_gradients() -> None:
    assert not isinstance(case("rgb"), Differentiable)
    assert checks_for(case("rgb")) == CLASSIFIER_CHECKS


@pytest.mark.parametrize(
    ("name", "module", "channels"),
    [
        ("rgb", cnn, 3),
        ("grey, normalised", lambda: cnn(1), 1),
        ("caffe, channels last", cnn, 3),
        ("batches of one", cnn, 3),
        ("batches of four", cnn, 3),
    ],
)
def test_numbers_are_those_of_the_model_that_was_exported(name: str, module: Any, channels: int) -> None:
    options = CASES[name][1]
    native = TorchClassifier(module(), input_shape=(channels, 12, 12), device="cpu", **options)
    np.testing.assert_allclose(case(name).logits(images(7, channels)), native.logits(images(7, channels)), atol=1e-5)


def test_probabilities_become_logits_of_the_same_classifier() -> None:
    with torch.no_grad():
        expected = dense(nn.Softmax(1))(batch(4))
    np.testing.assert_allclose(np.exp(case("float64, probabilities").logits(images())), expected, rtol=1e-5)


def test_half_precision_is_cast_to_and_from() -> None:
    classifier = OnnxClassifier(exported("half", dense().half(), batch().half()))
    with torch.no_grad():
        expected = dense()(batch(4))
    assert classifier.logits(images()).dtype == np.float32
    np.testing.assert_allclose(classifier.logits(images()), expected, atol=2e-3)


def test_shape_layout_and_provider_come_from_the_file() -> None:
    for name in ("rgb", "caffe, channels last", "keras lstm", "batches of four"):
        assert (case(name).input_shape, case(name).classes) == ((3, 12, 12), CLASSES)
    assert case("rgb").providers == ["CPUExecutionProvider"]


def test_a_file_for_images_of_any_size_needs_input_shape() -> None:
    pooled = nn.Sequential(nn.Conv2d(3, CLASSES, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    path = FOLDER / "any.onnx"
    sides = ({axis: torch.export.Dim(f"side{axis}", min=2) for axis in (0, 2, 3)},)
    torch.onnx.export(pooled, (batch(),), path, dynamo=True, external_data=False, dynamic_shapes=sides, verbose=False)
    with pytest.raises(InputError, match=r"any\.onnx takes images of any size: give input_shape="):
        OnnxClassifier(path)
    assert OnnxClassifier(path, input_shape=(3, 20, 30)).logits(np.zeros((2, 3, 20, 30), np.float32)).shape == (2, 5)


def written(name: str, content: bytes) -> Path:
    path = FOLDER / name
    path.write_bytes(content)
    return path


def truncated() -> Path:
    whole = exported("whole", cnn(), batch()).read_bytes()
    return written("truncated.onnx", whole[: len(whole) // 2])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: FOLDER / "absent.onnx", r"there is no ONNX file .*absent\.onnx"),
        (lambda: FOLDER, "there is no ONNX file"),
        (truncated, r"truncated\.onnx is not an ONNX model that can be run here"),
        (lambda: written("text.onnx", b"hello"), r"text\.onnx is not an ONNX model that can be run here"),
        (lambda: written("empty.onnx", b""), r"empty\.onnx is not an ONNX model that can be run here"),
        (lambda: exported("two", TwoInputs(), batch(), batch()), r"two\.onnx must have one input.*\['x', 'y'\]"),
        (lambda: exported("outputs", TwoOutputs(), batch()), "must have one input and one output"),
        (lambda: exported("flat", nn.Linear(9, 5), torch.zeros(2, 9)), "must take images, an input of 4 axes"),
        (lambda: exported("map", nn.Conv2d(3, 5, 3), batch()), r"must give class scores, \(1, classes\), not shape"),
        (lambda: exported("int", nn.Flatten(), batch().int()), r"must take float images, .* not tensor\(int32\)"),
    ],
)
def test_bad_files_are_named(build: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        OnnxClassifier(build())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_shape": (3, 20, 20)}, r"input_shape is \(3, 20, 20\), but .*rgb\.onnx takes \(3, 12, 12\)"),
        ({"classes": 7}, r"classes is 7, but .*rgb\.onnx gives 5"),
        ({"output": "softmax"}, "'logits' or 'probabilities', not 'softmax'"),
        ({"layout": "NHWC"}, "'channels-first' or 'channels-last', not 'NHWC'"),
        ({"device": "tpu9"}, "unknown device 'tpu9'; valid: auto, cpu, cuda"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        OnnxClassifier(case("rgb").path, **options)


def test_a_gpu_that_is_absent() -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime is the one for GPUs")
    with pytest.raises(
        InputError, match=r"'cuda' is not there: ONNX Runtime has CPUExecutionProvider .*sparring\[gpu\]"
    ):
        OnnxClassifier(case("rgb").path, device="cuda")


def test_without_onnx_runtime_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"pip install 'sparring\[cpu\]'"):
        OnnxClassifier("model.onnx")
