"""Files as the exporters write them today; ``torch.onnx`` and Keras are only what they come from."""

from __future__ import annotations

import sys
import warnings
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from sparring.adapters import attack, wrap
from sparring.adapters.conformance.classifiers import (
    CLASSIFIER_CHECKS,
    DIFFERENTIABLE_CHECKS,
    Check,
    check_rebuilds,
    checks_for,
    sample_cotangent,
)
from sparring.adapters.errors import InputError, NotSupported
from sparring.adapters.frameworks.pytorch import TorchClassifier
from sparring.adapters.onnx.classifier import OnnxClassifier, OnnxOutputs
from sparring.adapters.protocol import lacks

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


class Gray(nn.Module):
    """Images without an axis of channels."""

    def __init__(self) -> None:
        super().__init__()
        self.net = cnn(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x[:, None])


class Pooled(nn.Module):
    """Scores with sides of 1 behind them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Conv2d(3, CLASSES, 3), nn.ELU(), nn.AdaptiveAvgPool2d(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class OneByOne(nn.Module):
    """Its author forgot that there may be more than one image."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.last = nn.Linear(432, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(x.reshape(1, 432))


class Steps(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = dense()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(torch.round(x * 255) / 255)


class Whole(nn.Module):
    """Whole numbers in; the net behind takes [0, 1]."""

    def __init__(self, lowest: int) -> None:
        super().__init__()
        self.net, self.lowest = dense(), lowest

    def forward(self, x: Tensor) -> Tensor:
        return self.net((x.float() - self.lowest) / 255)


class TwoInputs(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return (x + y).flatten(1)


class TwoOutputs(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.flatten(1), 2 * x.flatten(1)


class LabelToo(nn.Module):
    """What scikit-learn's exporter writes: the label, then the scores; and one more output that is no score."""

    def __init__(self) -> None:
        super().__init__()
        self.net = cnn()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scores = self.net(x)
        return scores.argmax(1), scores, x.mean((1, 2, 3))


def dense(*more: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(432, CLASSES), *more).eval()


def exported(name: str, module: nn.Module, *inputs: Tensor, dynamic: bool = True, outputs: Any = ("y",)) -> Path:
    """By the exporter of TorchScript, which takes a tenth of a second; ``test_onnx_files.py`` has files of the other."""
    path = FOLDER / f"{name}.onnx"
    names = [f"x{i}" for i in range(len(inputs))]
    axes = {key: {0: "batch"} for key in (*names, *outputs)} if dynamic else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, inputs, str(path), dynamo=False, input_names=names, output_names=list(outputs), dynamic_axes=axes
        )
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


def one_by_one() -> Path:
    """Exported for one image; then the batch is declared to be of any size."""
    path = exported("constant", OneByOne(), batch(1), dynamic=False)
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.save(model, path)
    return path


CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "rgb": (lambda: exported("rgb", cnn(), batch()), {}),
    "gray, normalized": (lambda: exported("gray", cnn(1), batch(2, 1)), {"mean": (0.1307,), "std": (0.3081,)}),
    "caffe, channels last": (lambda: exported("last", ChannelsLast(), batch().permute(0, 2, 3, 1)), CAFFE),
    "batches of one": (lambda: exported("one", cnn(), batch(1), dynamic=False), {}),
    "batches of four": (lambda: exported("four", cnn(), batch(4), dynamic=False), {}),
    "float64, probabilities": (
        lambda: exported("double", dense(nn.Softmax(1)).double(), batch().double()),
        {"output": "probabilities"},
    ),
    "softmax": (lambda: exported("softmax", dense(nn.Softmax(1)), batch()), {"output": "probabilities"}),
    "gray, no channels": (lambda: exported("sides", Gray(), batch(2, 1)[:, 0]), {}),
    "rows, channels last": (
        lambda: exported("rows", nn.Sequential(nn.Unflatten(1, (12, 12, 3)), ChannelsLast()), batch().flatten(1)),
        {"input_shape": (3, 12, 12), "layout": "channels-last", **CAFFE},
    ),
    "pooled": (lambda: exported("pooled", Pooled(), batch()), {}),
    "one image whatever it says": (one_by_one, {}),
    "label and scores": (lambda: exported("label", LabelToo(), batch(), outputs=["label", "scores", "mean"]), {}),
    "keras cnn": (lambda: from_keras("keras cnn"), {}),
    "keras lstm": (lambda: from_keras("keras lstm"), {}),
}


@lru_cache
def case(name: str) -> OnnxClassifier:
    build, options = CASES[name]
    return OnnxClassifier(build(), device="cpu", **options)


@pytest.mark.parametrize("check", DIFFERENTIABLE_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", CASES)
def test_laws(name: str, check: Check) -> None:
    check(case(name))


def test_the_same_file_in_a_fresh_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = f"from sparring.adapters import wrap\n\ndef build():\n    return wrap({case('rgb').path!r}, device='cpu')\n"
    (tmp_path / "rebuilt_onnx.py").write_text(build)
    monkeypatch.syspath_prepend(tmp_path)
    check_rebuilds("rebuilt_onnx:build")


def test_the_capability_is_that_of_the_file() -> None:
    assert checks_for(case("rgb")) == DIFFERENTIABLE_CHECKS
    steps = wrap(exported("steps", Steps(), batch()))
    assert type(steps) is OnnxOutputs
    assert checks_for(steps) == CLASSIFIER_CHECKS


NATIVE: dict[str, tuple[Any, int]] = {
    "rgb": (cnn, 3),
    "gray, normalized": (lambda: cnn(1), 1),
    "caffe, channels last": (cnn, 3),
    "batches of one": (cnn, 3),
    "batches of four": (cnn, 3),
    "softmax": (lambda: dense(nn.Softmax(1)), 3),
    "gray, no channels": (lambda: cnn(1), 1),
    "rows, channels last": (cnn, 3),
    "pooled": (lambda: nn.Sequential(Pooled(), nn.Flatten()), 3),
    "one image whatever it says": (lambda: nn.Sequential(nn.Flatten(), OneByOne().last), 3),
    "label and scores": (cnn, 3),
}


@pytest.mark.parametrize("name", NATIVE)
def test_numbers_are_those_of_the_model_that_was_exported(name: str) -> None:
    build, channels = NATIVE[name]
    options = {key: value for key, value in CASES[name][1].items() if key not in ("input_shape", "layout")}
    native = TorchClassifier(build(), input_shape=(channels, 12, 12), device="cpu", **options)
    x = images(7, channels)
    np.testing.assert_allclose(case(name).logits(x), native.logits(x), atol=1e-5)
    cotangent = sample_cotangent(native, 7)
    expected = native.vjp(x, cotangent)
    np.testing.assert_allclose(case(name).vjp(x, cotangent), expected, atol=1e-5 * np.abs(expected).max())


def test_probabilities_become_logits_of_the_same_classifier() -> None:
    with torch.no_grad():
        expected = dense(nn.Softmax(1))(batch(4))
    powers = np.exp(case("float64, probabilities").logits(images()))
    np.testing.assert_allclose(powers / powers.sum(axis=1, keepdims=True), expected, rtol=1e-5)


def test_a_final_softmax_is_left_out_where_its_logarithm_would_saturate() -> None:
    """Logits 200 apart: the smaller probability underflows, and its logarithm has no gradient."""
    steep = dense(nn.Softmax(1))
    with torch.no_grad():
        steep[1].weight *= 1000
    classifier = OnnxClassifier(exported("steep", steep, batch()), output="probabilities")
    x, cotangent = images(), sample_cotangent(classifier, 4)
    with torch.no_grad():
        expected = steep[:2](batch(4)).numpy()
    assert np.ptp(expected) > 150
    np.testing.assert_allclose(classifier.logits(x), expected, rtol=1e-5)
    weight = steep[1].weight.detach().numpy()
    np.testing.assert_allclose(classifier.vjp(x, cotangent).reshape(4, -1), cotangent @ weight, rtol=1e-4, atol=1e-3)


def test_a_softmax_over_something_else_stays() -> None:
    """Over pairs of classes: what comes out are probabilities of nothing, but they are what the file gives."""
    odd = dense(nn.Linear(CLASSES, 4), nn.Unflatten(1, (2, 2)), nn.Softmax(2), nn.Flatten())
    classifier = OnnxClassifier(exported("pairs", odd, batch()), output="probabilities")
    with torch.no_grad():
        np.testing.assert_allclose(np.exp(classifier.logits(images())), odd(batch(4)), rtol=1e-5)


def test_half_precision_is_cast_to_and_from() -> None:
    classifier = OnnxClassifier(exported("half", dense().half(), batch().half()))
    native = TorchClassifier(dense(), input_shape=(3, 12, 12), device="cpu")
    x = images()
    assert classifier.logits(x).dtype == np.float32
    np.testing.assert_allclose(classifier.logits(x), native.logits(x), atol=2e-3)
    for size in (1.0, 1e-12):  # far below what half precision can tell from 0
        cotangent = sample_cotangent(native, 4) * np.float32(size)
        expected = native.vjp(x, cotangent)
        assert np.abs(classifier.vjp(x, cotangent) - expected).max() < 3e-3 * np.abs(expected).max()


@pytest.mark.parametrize(("kind", "lowest"), [(torch.uint8, 0), (torch.int8, -128)])
def test_whole_numbers_are_rounded_to_and_have_no_gradient(kind: torch.dtype, lowest: int) -> None:
    path = exported(f"whole{lowest}", Whole(lowest), batch().to(kind))
    classifier = wrap(path)
    expected = TorchClassifier(dense(), input_shape=(3, 12, 12), device="cpu")
    x = images()
    np.testing.assert_allclose(classifier.logits(x), expected.logits(np.round(x * 255) / np.float32(255)), atol=1e-4)
    reason = f"takes images of whole numbers, {kind}: rounding has none".replace("torch.", "")
    assert lacks(classifier)["gradients"].endswith(reason)
    with pytest.raises(NotSupported, match=r"fgsm needs gradients, and whole.*\.onnx takes images of whole numbers"):
        attack(classifier, x, [0] * 4, "fgsm", library="foolbox", eps=0.1)
    np.testing.assert_allclose(
        wrap(path, input_range=(0, 3)).logits(x),
        expected.logits(np.round(x * 3) / np.float32(255) - (lowest and lowest / np.float32(255))),
        atol=1e-4,
    )


def test_shape_layout_and_provider_come_from_the_file() -> None:
    for name in ("rgb", "caffe, channels last", "keras lstm", "batches of four"):
        assert (case(name).input_shape, case(name).classes) == ((3, 12, 12), CLASSES)
    assert case("rgb").providers == ["CPUExecutionProvider"]


def test_a_file_for_images_of_any_size_needs_input_shape() -> None:
    pooled = nn.Sequential(nn.Conv2d(3, CLASSES, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    path = exported("any", pooled, batch())
    model = onnx.load(path)
    for axis in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = f"side{axis}"
    onnx.save(model, path)
    with pytest.raises(InputError, match=r"any\.onnx takes images of any size: give input_shape="):
        OnnxClassifier(path)
    assert OnnxClassifier(path, input_shape=(3, 20, 30)).logits(np.zeros((2, 3, 20, 30), np.float32)).shape == (2, 5)


def written(name: str, content: bytes) -> Path:
    path = FOLDER / name
    path.write_bytes(content)
    return path


def folder() -> Path:
    path = FOLDER / "folder.onnx"
    path.mkdir(exist_ok=True)
    return path


def truncated() -> Path:
    whole = exported("whole", cnn(), batch()).read_bytes()
    return written("truncated.onnx", whole[: len(whole) // 2])


def of_nodes(name: str, *nodes: onnx.NodeProto, kind: int = onnx.TensorProto.FLOAT, outputs: Any = None) -> Path:
    """From `x` (N, 3, 12, 12) to `y` (N, 432), by hand."""
    graph = onnx.helper.make_graph(
        nodes,
        name,
        [onnx.helper.make_tensor_value_info("x", kind, ["N", 3, 12, 12])],
        outputs or [onnx.helper.make_tensor_value_info("y", kind, ["N", 432])],
    )
    domains = {"": 17, "ai.onnx.ml": 3, **{node.domain: 1 for node in nodes if node.domain.startswith("com.")}}
    opsets = [onnx.helper.make_opsetid(domain, version) for domain, version in domains.items()]
    return written(
        f"{name}.onnx", onnx.helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()
    )


def node(operator: str, inputs: str = "x", output: str = "y", domain: str = "", **attributes: Any) -> onnx.NodeProto:
    node_name = f"my {operator}"
    return onnx.helper.make_node(operator, inputs.split(), [output], node_name, domain=domain, **attributes)


def zipmap() -> Path:
    """What skl2onnx writes unless told otherwise."""
    kind = onnx.helper.make_map_type_proto(onnx.TensorProto.INT64, onnx.helper.make_tensor_type_proto(1, None))
    outputs = [onnx.helper.make_value_info("y", onnx.helper.make_sequence_type_proto(kind))]
    last = node("ZipMap", "rows", domain="ai.onnx.ml", classlabels_int64s=list(range(432)))
    return of_nodes("zipmap", node("Flatten", output="rows"), last, outputs=outputs)


def external(location: str) -> Path:
    """The weights in a file of their own, which the model says is elsewhere."""
    path = FOLDER / "external.onnx"
    onnx.save(
        onnx.load(exported("whole", cnn(), batch())),
        path,
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=256,
    )
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    onnx.save(model, path)
    return path


def linked() -> Path:
    outside = Path(_outside.name, "weights.bin")
    path = external("link.bin")
    outside.write_bytes((FOLDER / "weights.bin").read_bytes())
    link = FOLDER / "link.bin"
    link.unlink(missing_ok=True)
    link.symlink_to(outside)
    return path


_outside = TemporaryDirectory()
CUSTOM = (
    r"has the operator com\.acme\.Twist \(node 'my Twist'\), which ONNX Runtime doesn't have: .* not even as a black"
)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: FOLDER / "absent.onnx", r"there is no ONNX file .*absent\.onnx"),
        (folder, r"there is no ONNX file .*folder\.onnx"),
        (truncated, r"truncated\.onnx is not an ONNX file, or is truncated"),
        (lambda: written("text.onnx", b"hello"), r"text\.onnx is not an ONNX file, or is truncated"),
        (lambda: written("empty.onnx", b""), r"empty\.onnx is not an ONNX model"),
        (lambda: exported("two", TwoInputs(), batch(), batch()), r"two\.onnx must have one input.*x0 \(.*, x1 \("),
        (lambda: exported("map", nn.Conv2d(3, 5, 3), batch()), r"must give class scores, \(1, classes\), not shape"),
        (lambda: exported("int", nn.Flatten(), batch().int()), r"must take images of .* not tensor\(int32\)"),
        (lambda: exported("flat", nn.Linear(9, 5), torch.zeros(2, 9)), "takes rows of 9 values: give input_shape="),
        (
            lambda: exported("outputs", TwoOutputs(), batch(), outputs=["a", "b"]),
            r"outputs\.onnx has 2 outputs, .* a \(tensor\(float\) .* b \(.* Keep one: onnx\.utils\.extract_model\(",
        ),
        (lambda: of_nodes("ints", node("Flatten"), kind=onnx.TensorProto.INT64), r"not tensor\(int64\)"),
        (zipmap, r"a dictionary for each image .*options=\{'zipmap': False\}"),
        (lambda: of_nodes("custom", node("Twist", domain="com.acme")), CUSTOM),
        (
            # as tf2onnx writes it for Keras' exact gelu
            lambda: of_nodes("erfc", node("Flatten", output="z"), node("Erfc", "z")),
            r"has the operator Erfc \(node 'my Erfc'\), which ONNX Runtime doesn't have",
        ),
        (lambda: external("gone.bin"), r"external\.onnx: .*'gone\.bin', which is not there"),
        (
            lambda: external("../weights.bin"),
            r"external\.onnx: .*'\.\./weights\.bin', which is not in the model's folder",
        ),
        (
            lambda: external(str(FOLDER / "weights.bin")),
            r"external\.onnx: .*weights\.bin', which is not in the model's",
        ),
        (linked, r"external\.onnx: .*'link\.bin', which is not in the model's folder"),
    ],
)
def test_bad_files_are_named(build: Any, message: str) -> None:
    for open_file in (OnnxClassifier, OnnxOutputs, wrap):
        with pytest.raises(InputError, match=message):
            open_file(build())


def test_weights_in_a_file_beside_it() -> None:
    beside = wrap(external("weights.bin"))
    x, cotangent = images(), sample_cotangent(case("rgb"), 4)
    np.testing.assert_array_equal(beside.logits(x), case("rgb").logits(x))
    np.testing.assert_array_equal(beside.vjp(x, cotangent), case("rgb").vjp(x, cotangent))  # type: ignore[attr-defined]


def test_of_two_outputs_that_are_scores_the_one_that_is_called_so() -> None:
    path = exported("both", TwoOutputs(), batch(), outputs=["probabilities", "logits"])
    np.testing.assert_allclose(wrap(path).logits(images()), 2 * images().reshape(4, -1))
    logarithm = wrap(path, output="probabilities").logits(images())
    np.testing.assert_allclose(np.exp(logarithm), images().reshape(4, -1), rtol=1e-6)


def test_rows_need_the_images_whose_pixels_they_are() -> None:
    path = exported("row", nn.Linear(432, 5), torch.zeros(2, 432))
    with pytest.raises(InputError, match=r"input_shape \(3, 12, 13\) is 468 values, but .*row\.onnx takes rows of 432"):
        OnnxClassifier(path, input_shape=(3, 12, 13))
    assert OnnxClassifier(path, input_shape=(3, 12, 12)).logits(images()).shape == (4, 5)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: exported("steps", Steps(), batch()),
            r"steps\.onnx has a gradient of zero everywhere, .* Round \(node",
        ),
        (
            lambda: of_nodes("contrib", node("Flatten", output="z"), node("QuickGelu", "z", domain="com.microsoft")),
            r"contrib\.onnx has the operator com\.microsoft\.QuickGelu \(node 'my QuickGelu'\)",
        ),
    ],
)
def test_a_file_without_gradients_says_why_and_is_a_black_box(build: Any, message: str) -> None:
    path = build()
    with pytest.raises(NotSupported, match="^needs gradients, and " + message):
        OnnxClassifier(path)
    black_box = wrap(path)
    assert type(black_box) is OnnxOutputs
    x, y = images(), np.zeros(4, np.int64)
    with pytest.raises(NotSupported, match="^pgd needs gradients, and " + message):
        attack(black_box, x, y, "pgd", library="torchattacks", norm="linf", eps=0.1)
    assert attack(black_box, x, y, "square", library="art", norm="linf", eps=0.1, queries=3).forwards > 0


def test_an_evaluation_that_is_not_onnx_runtimes_gives_no_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong operator is found when a file is opened: here every one is a thousandth off."""
    from sparring.adapters.onnx import gradients

    true = gradients.evaluate

    def wrong(*args: Any) -> dict[str, Tensor]:
        return {name: value * 1.001 for name, value in true(*args).items()}

    monkeypatch.setattr(gradients, "evaluate", wrong)
    classifier = wrap(case("rgb").path)
    assert type(classifier) is OnnxOutputs
    assert "rgb.onnx, evaluated in torch, gives scores" in classifier.lacks["gradients"]
    np.testing.assert_array_equal(classifier.logits(images()), case("rgb").logits(images()))


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
    path = case("rgb").path
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"pip install 'sparring\[cpu\]'"):
        OnnxClassifier(path)
