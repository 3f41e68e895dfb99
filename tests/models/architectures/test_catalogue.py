from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparring.adapters.errors import InputError
from sparring.models.architectures import catalogue as architectures
from sparring.models.architectures.architecture import Architecture, parse, written

OURS = ("cnn", "cnn_dropout2d", "cnn_unpooled", "cnn_batchnorm", "dnn", "rnn", "gru", "simple_rnn")


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


# name, then what has weights or a rate, in order: (kind, size or rate)
STUDIES = {
    "cnn_dropout2d": [("conv", 32), ("conv", 64), ("pool", 2), ("channels", 0.25), ("dense", 128), ("dropout", 0.5)],
    "cnn_dropout2d(filters=(3, 5), units=7, conv_dropout=0, dropout=0.1)": [
        ("conv", 3),
        ("conv", 5),
        ("pool", 2),
        ("channels", 0.0),
        ("dense", 7),
        ("dropout", 0.1),
    ],
    "cnn_unpooled": [
        ("conv", 32),
        ("dropout", 0.25),
        ("conv", 64),
        ("dropout", 0.25),
        ("dense", 128),
        ("dropout", 0.5),
    ],
    "cnn_batchnorm": [
        ("conv", 32),
        ("norm", 32),
        ("dropout", 0.25),
        ("pool", 2),
        ("conv", 64),
        ("norm", 64),
        ("dropout", 0.25),
        ("pool", 2),
        ("dense", 128),
        ("dropout", 0.5),
    ],
    "cnn_unpooled(filters=(3, 5), units=7, conv_dropout=0, dropout=0.1)": [
        ("conv", 3),
        ("dropout", 0.0),
        ("conv", 5),
        ("dropout", 0.0),
        ("dense", 7),
        ("dropout", 0.1),
    ],
    "dnn(units=(9, 4), dropout=0.3)": [("dense", 9), ("dropout", 0.3), ("dense", 4), ("dropout", 0.3)],
    "rnn(units=9, dense=4, dropout=0.3)": [("cell", 9), ("dropout", 0.3), ("dense", 4)],
    "gru(units=9)": [("cell", 9), ("dense", 64)],
    "simple_rnn(dense=5)": [("cell", 128), ("dense", 5)],
}


@pytest.mark.parametrize("name", STUDIES)
def test_the_layers_are_those_of_the_name_in_both_frameworks(name):
    import keras
    from torch import nn

    torch_net = architectures.find(name, "torch").build("torch", (3, 8, 10), 10)
    keras_net = architectures.find(name, "keras").build("keras", (3, 8, 10), 10)
    in_torch = [
        (nn.Conv2d, "conv", "out_channels"),
        (nn.BatchNorm2d, "norm", "num_features"),
        (nn.Dropout, "dropout", "p"),
        (nn.MaxPool2d, "pool", "kernel_size"),
        (nn.Dropout2d, "channels", "p"),
        (nn.Linear, "dense", "out_features"),
        (nn.RNNBase, "cell", "hidden_size"),
    ]
    found = [
        (kind, getattr(layer, size))
        for layer in torch_net.modules()
        for cls, kind, size in in_torch
        if isinstance(layer, cls)
    ]
    in_keras = [
        (keras.layers.SpatialDropout2D, "channels", lambda layer: layer.rate),
        (keras.layers.Conv2D, "conv", lambda layer: layer.filters),
        (keras.layers.Dropout, "dropout", lambda layer: layer.rate),
        (keras.layers.BatchNormalization, "norm", lambda layer: layer.gamma.shape[0]),
        (keras.layers.MaxPooling2D, "pool", lambda layer: layer.pool_size[0]),
        (keras.layers.Dense, "dense", lambda layer: layer.units),
        (keras.layers.RNN, "cell", lambda layer: layer.units),
    ]
    # the first that fits: one that drops channels is a Dropout, too
    fitting = [next((one for one in in_keras if isinstance(layer, one[0])), None) for layer in keras_net.layers]
    there = [(one[1], one[2](layer)) for layer, one in zip(keras_net.layers, fitting, strict=True) if one]
    assert found == there == [*STUDIES[name], ("dense", 10)]
    assert (
        torch_logits(torch_net, np.zeros((2, 3, 8, 10), np.float32)).shape
        == (2, 10)
        == keras_net(np.zeros((2, 8, 10, 3))).shape
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cnn", ("cnn", {})),
        ("cnn()", ("cnn", {})),
        ("cnn( dropout=.3, units = 64 )", ("cnn", {"dropout": 0.3, "units": 64})),
        (
            "my-net(a='x', b=(1, 2), c=True, d=-1.5, e=None)",
            ("my-net", {"a": "x", "b": (1, 2), "c": True, "d": -1.5, "e": None}),
        ),
        ("my (1).keras", ("my (1).keras", {})),
        ("object:nets:build", ("object:nets:build", {})),
    ],
)
def test_parameters_are_read_from_a_name(text, expected):
    assert parse(text) == expected


@given(
    st.dictionaries(
        st.sampled_from(["a", "units", "x1"]),
        st.recursive(
            st.integers() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
            lambda v: st.tuples(v, v),
        ),
    )
)
def test_what_is_written_is_read_again(parameters):
    assert parse(written("cnn", **parameters)) == ("cnn", parameters)
    twice = written(written("cnn", units=1), **parameters)
    assert parse(twice) == ("cnn", {"units": 1, **parameters})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cnn(dropuot=0.3)", "unknown parameter 'dropuot'.*Did you mean.*'dropout'"),
        ("cnn(0.3)", "written as key=value"),
        ("cnn(dropout=)", "written as key=value"),
        ("cnn(units=open('x'))", "written as key=value"),
        ("cnn(**{})", "written as key=value"),
        ("cnn(units=1, units=2)", "written as key=value"),
        ("cnn(units=x)", "written as key=value"),
        ("cnn(units=64.0)", "units: 64.0 is not a whole number, as its default 128 is"),
        ("cnn(units=True)", "units: True is not a whole number"),
        ("cnn(dropout='a')", "dropout: 'a' is not a number"),
        ("cnn(filters=3)", "filters: 3 is not a tuple"),
        ("cnn(filters=(3,))", r"\(3,\) has 1 values, not 2"),
        ("resnet18(units=3)", "unknown parameter 'units'.*resnet18 takes none"),
        ("mobilenet_v2_keras(alpha=1)", "unknown parameter 'alpha'"),
        ("cnnn(units=3)", "unknown architecture 'cnnn'"),
    ],
)
@pytest.mark.parametrize("framework", ["torch", "keras"])
def test_parameters_that_are_not_there(name, framework, message):
    with pytest.raises(InputError, match=message):
        architectures.find(name, framework)


@pytest.mark.parametrize("framework", ["torch", "keras"])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cnn(units=0)", "a size of 0"),
        ("dnn(units=(4, -1))", "a size of -1"),
        ("gru(dense=0)", "a size of 0"),
        ("cnn_unpooled(dropout=1.0)", "a dropout rate of 1.0"),
        ("rnn(dropout=-0.1)", "a dropout rate of -0.1"),
    ],
)
def test_parameters_that_make_no_network(name, framework, message):
    with pytest.raises(InputError, match=message):
        architectures.find(name, framework).build(framework, (1, 8, 8), 10)


def test_parameters_are_checked_without_a_framework(fresh):
    code = (
        "import sys; from sparring.models.architectures import catalogue as architectures\n"
        "for name in ('cnn', 'rnn', 'cnn_batchnorm'):\n"
        "    for framework in ('torch', 'keras'):\n"
        "        architectures.find(f'{name}(units=64, dropout=0.1)', framework)\n"
        "print(sorted({'torch', 'torchvision', 'tensorflow', 'keras'} & set(sys.modules)))"
    )
    assert fresh(code) == "[]"


def test_the_same_parameters_in_both_frameworks():
    for name in OURS:
        both = [architectures.find(name, framework).parameters(framework) for framework in ("torch", "keras")]
        assert both[0] == both[1] != {}


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
    for name in (*OURS, "mobilenet_v2", "resnet18", "resnet50"):
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
    [
        ("cnn", "torch", (1, 4, 4)),
        ("cnn", "keras", (1, 4, 4)),
        ("cnn_unpooled", "torch", (1, 4, 4)),
        ("cnn_unpooled", "keras", (1, 4, 4)),
        ("cnn_batchnorm", "torch", (1, 3, 8)),
        ("cnn_batchnorm", "keras", (1, 3, 8)),
        ("resnet18", "torch", (1, 28, 28)),
        ("resnet18", "keras", (1, 28, 28)),
        ("mobilenet_v2", "keras", (3, 8, 8)),
        ("mobilenet_v2_keras", "torch", (3, 8, 8)),
        ("mobilenet_v2_torchvision", "keras", (1, 32, 32)),
    ],
)
def test_images_that_a_network_cannot_take(name, framework, shape):
    with pytest.raises(InputError, match=f"{name} can't be built for images of {shape[0]} x {shape[1]} x {shape[2]}"):
        architectures.find(name, framework).build(framework, shape, 10)


def test_another_package_registers_an_architecture(tmp_path, monkeypatch):
    (tmp_path / "flat_nets.py").write_text(
        "from sparring.models.architectures.architecture import Architecture\n"
        "def build(shape, classes, *, scale=1.0, bias):\n"
        "    from torch import nn\n"
        "    net = nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], classes, bias=bias))\n"
        "    net.scale = scale\n"
        "    return net\n"
        "FLAT = Architecture('flat', 'one layer', {'torch': build})\n"
        "NAMED = Architecture('named', 'the same by its place', {'torch': 'flat_nets:build'})\n"
    )
    info = tmp_path / "flat_nets-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: flat_nets\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[sparring.models]\nflat = flat_nets:FLAT\nnamed-net = flat_nets:NAMED\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("flat", "named-net"):
        found = architectures.find(f"{name}(bias=False, scale=2)", "torch")
        assert isinstance(found, Architecture)
        net = found.build("torch", (1, 8, 8), 3)
        assert torch_logits(net, np.zeros((2, 1, 8, 8), np.float32)).shape == (2, 3)
        assert (net[1].bias, net.scale) == (None, 2.0)
        with pytest.raises(InputError, match=f"architecture '{name}.*' needs a value for bias"):
            architectures.find(f"{name}(scale=2.0)", "torch")
        with pytest.raises(InputError, match="missing 1 required keyword-only argument: 'bias'"):
            architectures.find(name, "torch").build("torch", (1, 8, 8), 3)
    with pytest.raises(InputError, match="is there for torch, not for keras"):
        architectures.find("flat", "keras")
