"""Any model of torch and Keras becomes an ONNX file that takes the images of the box and says where it comes from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from sparring.adapters.errors import InputError
from sparring.adapters.wrap import wrap
from sparring.models.architectures import catalogue as architectures
from sparring.models.networks import build as networks
from sparring.models.networks import export

SHAPE, CLASSES = (3, 32, 32), 7
OPTIONS = {"input_range": [0, 255], "mean": [120.0, 110.0, 100.0], "std": [60.0, 50.0, 40.0], "channel_order": "bgr"}
IMAGES = np.random.default_rng(0).random((5, *SHAPE), np.float32)


def exported(model, path, options=None, shape=SHAPE, x=IMAGES, architecture=""):
    """The file's classifier, what was said of it, and its largest difference from the model."""
    options = options or {}
    source = wrap(model, input_shape=shape, device="cpu", **options)
    facts = export.export(source, model, path, options, architecture)
    made = wrap(str(path), device="cpu")
    return made, facts, export.check(source, made, x)


@pytest.mark.parametrize("framework", ["torch", "keras"])
@pytest.mark.parametrize("name", ["gru", "simple_rnn", "mobilenet_v2"])
def test_the_file_computes_the_same_for_any_batch_and_says_where_it_comes_from(tmp_path, framework, name):
    model, path = architectures.find(name, framework).build(framework, SHAPE, CLASSES), tmp_path / "m.onnx"
    layout = {"layout": "channels-last"} if framework == "keras" else {}
    made, facts, difference = exported(model, path, {**OPTIONS, **layout}, architecture=name)
    assert difference < 2e-5
    proto = onnx.load(path)
    assert {prop.key: prop.value for prop in proto.metadata_props} == facts
    assert facts["opset"] == str(proto.opset_import[0].version)
    assert facts["exporter"].startswith(f"torch {torch.__version__} dynamo" if framework == "torch" else "tf2onnx 1.")
    assert facts["digest"] == networks.digest_of(model)
    assert (facts["architecture"], facts["classes"]) == (name, "7")
    assert facts["input"] == "images in [0, 1], NCHW, normalization included"
    for n in (0, 1, 3):
        assert made.logits(IMAGES[:n]).shape == (n, CLASSES)
    assert str(Path(torch.__file__).parent).encode() not in path.read_bytes()  # nor any other path of this machine
    assert str(Path(__file__).parents[3]).encode() not in path.read_bytes()


class Branches(nn.Module):
    """Which way it goes depends on the images: torch's exporter of today refuses."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3 * 32 * 32, CLASSES)

    def forward(self, x):
        scores = self.layer(x.flatten(1))
        return scores if scores.sum() > -1e9 else -scores


def test_torchs_old_exporter_where_the_new_one_fails(tmp_path):
    _, facts, difference = exported(Branches(), tmp_path / "m.onnx")
    assert difference < 1e-5
    assert facts["exporter"].startswith(f"torch {torch.__version__} torchscript (dynamo failed: ")


def test_a_module_in_training_mode_is_exported_as_it_infers(tmp_path):
    net = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(3072, 8), nn.BatchNorm1d(8), nn.Linear(8, 7)).train()
    for _ in range(3):
        net(torch.rand(16, *SHAPE))  # the statistics of batches are those of no single one
    made, _, difference = exported(net, tmp_path / "m.onnx")
    assert difference < 1e-5
    assert all(part.training for part in net.modules())
    np.testing.assert_allclose(made.logits(IMAGES), net.eval()(torch.from_numpy(IMAGES)).detach(), atol=1e-5)


def test_probabilities_become_logits(tmp_path):
    net = nn.Sequential(nn.Flatten(), nn.Linear(3072, 7), nn.Softmax(1))
    made, _, _ = exported(net, tmp_path / "m.onnx", {"output": "probabilities"})
    assert made.logits(IMAGES).min() < 0
    np.testing.assert_allclose(made.logits(IMAGES), net[:2](torch.from_numpy(IMAGES)).detach(), atol=1e-5)


class Unwritable(nn.Module):
    def forward(self, x):
        return torch.linalg.eigvals(x.mean(1)).abs()[:, :CLASSES]


def test_what_cannot_be_exported_leaves_no_file(tmp_path):
    with pytest.raises(InputError, match="export: the model can't be exported to ONNX: "):
        exported(Unwritable(), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_a_file_that_computes_something_else_is_refused(tmp_path):
    one, other = (nn.Sequential(nn.Flatten(), nn.Linear(3072, 7)) for _ in range(2))
    made, _, _ = exported(one, tmp_path / "m.onnx")
    with pytest.raises(InputError, match="the ONNX file gives other logits than the model: they differ by"):
        export.check(wrap(other, input_shape=SHAPE, device="cpu"), made, IMAGES)


ELSEWHERE = """
import sys, json; sys.path.insert(0, {tests!r}); from test_export import *
import keras
layers = [keras.layers.GRU(8), keras.layers.Dense(7, activation="softmax")]
model = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Reshape((32, 96)), *layers])
made, facts, difference = exported(model, Path({path!r}), {{**OPTIONS, "output": "probabilities"}})
print(json.dumps([facts, difference, float(made.logits(IMAGES).min())]))
"""


def test_keras_on_jax_is_exported_by_keras_on_tensorflow(fresh, tmp_path):
    pytest.importorskip("jax")
    code = ELSEWHERE.format(tests=str(Path(__file__).parent), path=str(tmp_path / "m.onnx"))
    facts, difference, least = json.loads(fresh(code, "jax"))
    assert facts["exporter"].startswith("tf2onnx 1.")
    assert difference < 2e-5
    assert least < 0
