from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml

from sparring.adapters.errors import InputError
from sparring.adapters.wrap import wrap
from sparring.models.architectures import catalogue as architectures
from sparring.models.data import datasets
from sparring.models.model_spec import model_spec
from sparring.models.networks import portable
from sparring.models.prepared import prepare as load
from sparring.models.prepared.write import write
from sparring.models.spec import DataSpec
from sparring.suites.certify import reference
from sparring.suites.cli.convert import SUFFIXES, convert_command

DIGITS = DataSpec(name="digits")
SAID = {"mean": [0.4], "std": [0.3]}


@pytest.fixture
def net(tmp_path, monkeypatch):
    """A .safetensors file in the working directory, as `--to torch` writes it."""
    monkeypatch.chdir(tmp_path)
    network = architectures.find("cnn", "torch").build("torch", (1, 8, 8), 10)
    path = tmp_path / "net.safetensors"
    portable.save_torch(network, path, architecture="cnn", input_shape=(1, 8, 8), classes=10, options=SAID)
    return path


def prepared(text):
    """Without worker processes: the tests that need just what is written."""
    asked = reference.resolve(text)
    assert asked.data == DIGITS
    return load.prepare(asked.spec, data=asked.data, base=asked.base)


def test_each_file_is_a_model_on_its_own_and_can_be_converted_again(net):
    """torch -> Keras -> torch -> ONNX, by file names alone; everything but the weights is in the files."""
    x = datasets.load(DIGITS, base=Path()).x
    expected = load.open_model(prepared("net.safetensors"), device="cpu").logits(x)
    steps = [
        ("net.safetensors", "keras", "a.keras"),
        ("a.keras", "torch", "b.safetensors"),
        ("b.safetensors", "torch", "c.safetensors"),
        ("a.keras", "keras", "d.keras"),
        ("c.safetensors", "onnx", "e.onnx"),
    ]
    for source, to, made in steps:
        said = write(prepared(source), to, Path(made), x[:32])
        assert float(said["largest difference of a logit, 32 images"]) < 1e-5
        assert len(said["digest"]) == 64
        logits = load.open_model(prepared(made), device="cpu").logits(x)
        np.testing.assert_allclose(logits, expected, atol=1e-5, err_msg=made)
    assert portable.described(Path("b.safetensors"))["architecture"] == "cnn"
    np.testing.assert_allclose(portable.described(Path("b.safetensors"))["options"]["std"], [0.3], rtol=1e-6)


def test_the_command(net, capsys):
    convert_command("net.safetensors", "onnx")
    told = capsys.readouterr().out
    assert "Written: net.onnx" in told
    assert "Next: sparring certify net.safetensors net.onnx" in told
    said = {prop.key: prop.value for prop in onnx.load("net.onnx").metadata_props}
    for key in ("opset", "exporter", "digest"):
        assert f"{key}: {said[key]}" in told.replace("\n", "")
    for options in ({}, {"out": net, "force": True}):
        with pytest.raises(InputError, match=r"net\.onnx is there already.*--force|name ends in \.onnx"):
            convert_command("net.safetensors", "onnx", **options)


@pytest.mark.parametrize(
    ("model", "to", "out", "message"),
    [
        ("net.safetensors", "tensorflow", None, "--to: unknown framework 'tensorflow'.*Valid: keras, onnx, torch"),
        (
            "net.safetensors",
            "onnx",
            "net.keras",
            r"--out net\.keras: --to onnx writes a file whose name ends in \.onnx",
        ),
        ("net.safetensors", "keras", "absent/net.keras", "--out absent/net.keras: there is no folder absent"),
        ("graph.onnx", "torch", None, "is an ONNX graph, not a network whose weights.*white-box attacks"),
        ("graph.onnx", "onnx", None, "is an ONNX model already"),
        ("absent.keras", "onnx", None, "there is no file .*absent.keras"),
    ],
)
def test_what_cannot_be_done(net, model, to, out, message):
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 1, 8, 8])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["x2"])], "g", [value], [value])
    onnx.save(onnx.helper.make_model(graph), "graph.onnx")
    with pytest.raises(InputError, match=message):
        convert_command(model, to, out=Path(out) if out else None)


def test_a_network_that_has_no_twin_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(
        "from torch import nn\nnet = nn.Sequential(nn.Flatten(), nn.Linear(64, 10, bias=False))\n"
    )
    spec = model_spec(name="net", object="mine:net")
    import torch

    torch.manual_seed(0)
    ref = load.prepare(spec, data=DIGITS, base=tmp_path)
    x = datasets.load(DIGITS, base=Path()).x[:8]
    before = set(tmp_path.iterdir())
    for to in ("keras", "torch"):
        with pytest.raises(InputError, match=r"can't be moved between torch and Keras, only those of cnn.*to ONNX"):
            write(ref, to, tmp_path / f"net{SUFFIXES[to]}", x)
    assert set(tmp_path.iterdir()) == before
    write(ref, "onnx", tmp_path / "net.onnx", x)
    assert "architecture" not in {prop.key for prop in onnx.load(tmp_path / "net.onnx").metadata_props}
    assert wrap("net.onnx").classes == 10


def test_a_file_that_computes_something_else_does_not_stay(net, monkeypatch):
    """Whatever goes wrong on the way, the comparison comes before the file's name."""
    from sparring.models.networks import convert

    moved = convert.torch_to_keras

    def wrong(arrays, *args):
        return {key: -value if key == "logits/kernel" else value for key, value in moved(arrays, *args).items()}

    monkeypatch.setattr(convert, "torch_to_keras", wrong)
    x = datasets.load(DIGITS, base=Path()).x[:8]
    with pytest.raises(InputError, match="convert: the keras file gives other logits than the model"):
        write(prepared("net.safetensors"), "keras", Path("net.keras"), x)
    assert [path.name for path in Path().iterdir()] == ["net.safetensors"]


def test_an_ensemble_is_converted_by_its_members(tmp_path, monkeypatch):
    suite = {
        "name": "s",
        "data": {"name": "digits"},
        "attacks": [{"attack": "fgsm", "eps": [0.1]}],
        "models": [
            {"name": "a", "architecture": "dnn"},
            {"name": "b", "architecture": "dnn", "framework": "keras"},
            {"name": "both", "ensemble": ["a", "b"]},
        ],
    }
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(suite))
    with pytest.raises(InputError, match=r"both is an ensemble.*convert its members one by one"):
        convert_command("both", "onnx", suite=str(tmp_path / "s.yaml"))
