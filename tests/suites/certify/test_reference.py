"""What the command line may call a model, and what it says where that isn't enough."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from safetensors.numpy import save_file

from sparring.adapters.errors import InputError
from sparring.models.prepared.open import open_model
from sparring.suites.certify.reference import images, open_reference, resolve, resolve_all
from sparring.suites.workers.local import LocalExecutor

SUITE = """\
name: mine
data: {path: pictures.npz, samples: 5}
models:
  - {name: net, architecture: dnn, framework: torch}
  - {name: file, export: net}
  - {name: both, ensemble: [net, file]}
attacks: [{attack: fgsm, eps: 0.1}]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "pictures.npz", x=rng.integers(0, 256, (20, 8, 8), np.uint8), y=np.arange(20) % 4)
    (tmp_path / "mine.yaml").write_text(SUITE)
    return tmp_path


def an_onnx_file(path: Path, sides: list[int | str]) -> None:
    """The mean of every channel of an image, as scores."""
    axes = [2, 3] if sides[2] != 3 else [1, 2]
    node = helper.make_node("ReduceMean", ["images"], ["scores"], axes=axes, keepdims=0)
    inputs = [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", *sides])]
    outputs = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 3])]
    graph = helper.make_graph([node], "g", inputs, outputs)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=9), path)


def test_by_name_with_the_models_that_it_is_made_of_and_the_suites_data(folder: Path) -> None:
    reference = resolve("both", suite="mine.yaml")
    assert (reference.spec.name, [source.spec.name for source in reference.sources]) == ("both", ["net", "file"])
    assert [source.spec.name for source in reference.sources[1].sources] == ["net"]
    assert reference.data.path == str(folder / "pictures.npz")
    assert images(reference.data, 1000).samples == 20
    assert images(reference.data, 7).samples == 7
    assert resolve("net", suite="mine.yaml", data="digits").data.name == "digits"


def test_inline_as_in_a_suite_file(folder: Path) -> None:
    reference = resolve("{architecture: cnn, framework: keras, train: {epochs: 1}}", data="digits")
    assert (reference.spec.runtime, reference.spec.architecture, reference.base) == ("keras-tensorflow", "cnn", folder)
    assert resolve("{export: net}", suite="mine.yaml").sources[0].spec.name == "net"


def test_a_file_and_the_data_that_fit_it(folder: Path) -> None:
    an_onnx_file(folder / "a.onnx", [3, 32, 32])
    an_onnx_file(folder / "last.onnx", [32, 32, 3])
    an_onnx_file(folder / "odd.onnx", [3, 30, 30])
    assert resolve("a.onnx").data.name == "cifar10"
    assert resolve("last.onnx").data.name == "cifar10"
    assert resolve("a.onnx", data="gtsrb").data.name == "gtsrb"
    with pytest.raises(InputError, match=r"odd.onnx takes images of 3 x 30 x 30: say which, with --data"):
        resolve("odd.onnx")
    with zipfile.ZipFile(folder / "m.keras", "w") as archive:
        layer = {"class_name": "InputLayer", "config": {"batch_shape": [None, 28, 28, 1]}}
        archive.writestr("config.json", json.dumps({"config": {"layers": [layer]}}))
    assert resolve("m.keras").data.name == "mnist"
    # one that doesn't tell, beside one that does
    inline = resolve_all(["{architecture: cnn, framework: torch}", "m.keras"])[0]
    assert inline.data.name == "mnist"


def test_a_safetensors_file_says_itself_what_it_is(folder: Path) -> None:
    metadata = {
        "architecture": "dnn",
        "input_shape": [1, 8, 8],
        "classes": 4,
        "options": {"mean": [0.5], "layout": None},
    }
    save_file({"w": np.zeros(2, np.float32)}, folder / "d.safetensors", metadata={"sparring": json.dumps(metadata)})
    save_file({"w": np.zeros(2, np.float32)}, folder / "bare.safetensors")
    reference = resolve("d.safetensors")
    assert (reference.spec.architecture, reference.spec.mean, reference.data.name) == ("dnn", (0.5,), "digits")
    with pytest.raises(InputError, match=r"weights alone.*\{architecture: cnn, weights: bare.safetensors, framework"):
        resolve("bare.safetensors")


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("nothing", {}, "there is no model 'nothing'.*--suite.*a file"),
        ("nett", {"suite": "mine.yaml"}, "unknown model 'nett'. Did you mean 'net'"),
        ("gone.onnx", {}, "there is no file"),
        ("{architecture: cnn", {}, "not valid YAML"),
        ("{architecture: cnn, wights: a.npz}", {}, "unknown key 'wights'. Did you mean 'weights'"),
        ("{architecture: cnn, framework: jacks}", {}, "framework: "),
        ("{export: net}", {}, "'net' is a model of a suite: say which, with --suite"),
        ("{architecture: cnn}", {}, "say which, with --data"),
        ("{architecture: cnn}", {"data": "no/such/folder"}, "there is no file or folder"),
        ("w.pt", {}, "weights alone"),
        ("broken.onnx", {}, "can't be read as an ONNX model"),
        ("broken.keras", {}, "can't be read as a .keras file"),
    ],
)
def test_bad_input_is_one_message(folder: Path, text: str, options: dict[str, str], message: str) -> None:
    for name in ("w.pt", "broken.onnx", "broken.keras"):
        (folder / name).write_bytes(b"\x93 not one")
    with pytest.raises(InputError, match=message):
        resolve(text, **options)


def test_prepared_in_a_process_and_opened(folder: Path) -> None:
    an_onnx_file(folder / "a.onnx", [3, 16, 16])
    rng = np.random.default_rng(0)
    np.savez(folder / "colours.npz", x=rng.integers(0, 256, (9, 16, 16, 3), np.uint8), y=np.arange(9) % 3)
    (folder / "two.yaml").write_text(
        "name: two\ndata: {path: colours.npz}\nattacks: [{attack: fgsm, eps: 0.1}]\nmodels:\n"
        "  - {name: a, onnx: a.onnx}\n  - {name: b, onnx: a.onnx, channel_order: bgr}\n"
        "  - {name: both, ensemble: [a, b], combine: logits}\n"
    )
    executor = LocalExecutor("cpu")
    try:
        ref = open_reference(resolve("both", suite="two.yaml"), executor=executor, device="cpu")
        (folder / "w.pt").write_bytes(b"\x93 not one")
        broken = resolve("{weights: w.pt, architecture: cnn}", data="digits")
        with pytest.raises(InputError, match=r"^\{weights: w.pt, architecture: cnn\}: weights: .*w.pt"):
            open_reference(broken, executor=executor, device="cpu")
    finally:
        executor.close()
    assert (ref.framework, ref.frameworks, ref.classes) == ("ensemble", ("onnx",), 3)
    x = rng.random((2, 3, 16, 16), np.float32)
    means = x.mean((2, 3))
    assert open_model(ref).logits(x) == pytest.approx((means + means[:, ::-1]) / 2, abs=1e-6)
