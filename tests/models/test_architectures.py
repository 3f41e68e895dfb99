from __future__ import annotations

import numpy as np
import pytest

from sparring.adapters.errors import InputError
from sparring.models import architectures
from sparring.models.architectures import Architecture

OURS = ("cnn", "dnn", "rnn")


def torch_logits(net, x):
    import torch

    with torch.no_grad():
        return net.eval()(torch.from_numpy(x)).numpy()


def test_dropout_is_where_it_is_said():
    import torch

    net = architectures.find("cnn", "torch").build("torch", (1, 8, 8), 10)
    keras_net = architectures.find("cnn", "keras").build("keras", (1, 8, 8), 10)
    rates = [layer.p for layer in net if isinstance(layer, torch.nn.Dropout)]
    assert rates == [0.25, 0.5] == [layer.rate for layer in keras_net.layers if "dropout" in layer.name]


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "googlenet", "inception_v3"])
def test_torchvision_networks_give_logits_of_as_many_classes_as_asked(name):
    size = 75 if name == "inception_v3" else 64
    net = architectures.find(name, "torch").build("torch", (3, size, size), 5)
    x = np.random.default_rng(0).random((2, 3, size, size), np.float32)
    assert torch_logits(net, x).shape == (2, 5)
    assert type(net.train()(__import__("torch").from_numpy(x))).__name__ == "Tensor"  # no tuple in training either


def test_every_torchvision_classifier_is_in_the_catalogue():
    import torchvision

    listed = {a.name: a for a in architectures.catalogue()}
    assert set(torchvision.models.list_models(module=torchvision.models)) | set(OURS) <= set(listed)
    for name in (*OURS, "gru", "simple_rnn", "mobilenet_v2", "resnet18", "resnet50"):
        assert listed[name].frameworks == ("torch", "keras")
    assert listed["resnet34"].frameworks == ("torch",)
    assert all(a.description for a in listed.values())


@pytest.mark.parametrize(
    ("name", "framework", "message"),
    [
        ("cnnn", "torch", "unknown architecture 'cnnn'.*Did you mean.*'cnn'"),
        ("resnet81", "keras", "unknown architecture 'resnet81'.*'resnet18'"),
        ("resnet34", "keras-torch", "'resnet34' is there for torch, not for keras-torch"),
    ],
)
def test_a_name_that_is_not_there(name, framework, message):
    with pytest.raises(InputError, match=message):
        architectures.find(name, framework)


@pytest.mark.parametrize(
    ("name", "framework", "shape"),
    [("cnn", "torch", (1, 4, 4)), ("cnn", "keras", (1, 4, 4)), ("resnet18", "torch", (1, 28, 28)), ("resnet18", "keras", (1, 28, 28)), ("mobilenet_v2", "keras", (3, 8, 8)),
     ("mobilenet_v2_keras", "torch", (3, 8, 8)), ("mobilenet_v2_torchvision", "keras", (1, 32, 32))],
)  # fmt: skip
def test_images_that_a_network_cannot_take(name, framework, shape):
    with pytest.raises(InputError, match=f"{name} can't be built for images of {shape[0]} x {shape[1]} x {shape[2]}"):
        architectures.find(name, framework).build(framework, shape, 10)


def test_another_package_registers_an_architecture(tmp_path, monkeypatch):
    (tmp_path / "flat_nets.py").write_text(
        "from sparring.models.architectures import Architecture\n"
        "def build(shape, classes):\n"
        "    from torch import nn\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], classes))\n"
        "FLAT = Architecture('flat', 'one layer', {'torch': build})\n"
    )
    info = tmp_path / "flat_nets-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: flat_nets\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[sparring.models]\nflat = flat_nets:FLAT\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = architectures.find("flat", "torch")
    assert isinstance(found, Architecture)
    assert torch_logits(found.build("torch", (1, 8, 8), 3), np.zeros((2, 1, 8, 8), np.float32)).shape == (2, 3)
    with pytest.raises(InputError, match="is there for torch, not for keras"):
        architectures.find("flat", "keras")
