"""A named architecture computes the same in torch and in Keras, whichever way its weights were moved."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from sparring.adapters.errors import InputError
from sparring.adapters.wrap import wrap
from sparring.models.architectures import catalogue as architectures
from sparring.models.architectures import mobilenet
from sparring.models.architectures.torch_networks import FoldedMobileNet
from sparring.models.architectures.twins import twin, weighted_layers
from sparring.models.data import datasets
from sparring.models.model_spec import model_spec
from sparring.models.networks import build as networks
from sparring.models.networks import convert, export, portable, weights
from sparring.models.prepared import prepare as load
from sparring.models.spec import DataSpec

SHAPES = {
    "cnn": (3, 10, 14),
    "cnn_dropout2d": (1, 10, 15),
    "cnn_unpooled": (3, 10, 14),
    "cnn_batchnorm": (3, 10, 15),
    "cnn_batchnorm(filters=(5, 6), units=9)": (3, 10, 14),
    "gru(units=12, dense=9, dropout=0.1)": (3, 10, 14),
    "dnn": (3, 10, 14),
    "rnn": (3, 10, 14),
    "gru": (3, 10, 14),
    "simple_rnn": (1, 10, 14),
    "resnet18": (3, 32, 32),
    "resnet50": (3, 32, 32),
    "mobilenet_v2": (3, 35, 32),
}
CLASSES = 7
BOTH = ("torch", "keras")
DIGITS, BASE = DataSpec(name="digits"), Path(".")
LAYERS = weighted_layers


def random_arrays(arrays, seed=0):
    """Biases and batch statistics that are not what a fresh network has: zeros and ones would hide a mistake."""
    rng = np.random.default_rng(seed)
    drawn = {}
    for key, value in arrays.items():
        part = key.replace("/", ".").rpartition(".")[2]
        value = np.asarray(value)
        if part in ("running_mean", "moving_mean", "beta") or "bias" in part:
            value = rng.normal(0, 0.2, value.shape).astype(np.float32)
        elif part in ("running_var", "moving_variance", "gamma") or (part == "weight" and value.ndim == 1):
            value = rng.uniform(0.5, 1.5, value.shape).astype(np.float32)
        drawn[key] = value
    return drawn


@lru_cache
def source(name, framework):
    import keras
    import torch

    torch.manual_seed(0)
    keras.utils.set_random_seed(0)
    network = architectures.find(name, framework).build(framework, SHAPES[name], CLASSES)
    if framework == "torch":
        weights.put_torch(network, random_arrays(weights.torch_arrays(network)), "drawn")
        return network.eval()
    weights.put_keras(network, random_arrays(weights.keras_arrays(network)), "drawn")
    return network


@lru_cache
def moved(name, framework):
    """The source of that framework in the other."""
    there = convert.to_keras if framework == "torch" else convert.to_torch
    return there(source(name, framework), name, SHAPES[name], CLASSES)


def arrays_of(network):
    return (weights.torch_arrays if hasattr(network, "state_dict") else weights.keras_arrays)(network)


def folded(arrays):
    """A Keras MobileNet v2 with each batch normalisation folded into the convolution before it."""
    made = {key: value for key, value in arrays.items() if key.startswith("predictions/")}
    for conv in mobilenet.CONVOLUTIONS:
        gamma, beta, mean, variance = (
            arrays[f"{conv.norm}/{part}"].astype(np.float64)
            for part in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        scale = gamma / np.sqrt(variance + 1e-3)
        made[f"{conv.name}/kernel"] = arrays[f"{conv.name}/kernel"] * (scale[:, None] if conv.depthwise else scale)
        made[f"{conv.name}/bias"] = beta - mean * scale
    return {key: value.astype(np.float32) for key, value in made.items()}


def compare(one, other, shape):
    """The largest difference of a logit, and the cosine of the gradients of the same function of the logits."""
    rng = np.random.default_rng(1)
    x, cotangent = rng.random((6, *shape), np.float32), rng.normal(size=(6, CLASSES)).astype(np.float32)
    a, b = (wrap(model, input_shape=shape, device="cpu") for model in (one, other))
    difference = np.abs(a.logits(x) - b.logits(x)).max() / max(1.0, np.abs(a.logits(x)).max())
    g, h = (classifier.vjp(x, cotangent).astype(np.float64).reshape(6, -1) for classifier in (a, b))
    cosine = (g * h).sum(1) / np.linalg.norm(g, axis=1) / np.linalg.norm(h, axis=1)
    return difference, cosine.min()


@pytest.mark.parametrize("framework", ["torch", "keras"])
@pytest.mark.parametrize("name", SHAPES)
def test_the_weights_moved_compute_the_same(name, framework):
    difference, cosine = compare(source(name, framework), moved(name, framework), SHAPES[name])
    assert difference < 1e-5
    assert cosine > 0.9999


@pytest.mark.parametrize(("name", "shape"), [("cnn", (1, 8, 8)), ("cnn", (1, 28, 28)), ("dnn", (1, 8, 8))], ids=str)
def test_small_images_of_one_channel(name, shape):
    network = architectures.find(name, "torch").build("torch", shape, CLASSES).eval()
    difference, cosine = compare(network, convert.to_keras(network, name, shape, CLASSES), shape)
    assert difference < 1e-5
    assert cosine > 0.9999


@pytest.mark.parametrize("framework", ["torch", "keras"])
@pytest.mark.parametrize("name", SHAPES)
def test_there_and_back_the_arrays_are_the_same(name, framework):
    shape, network = SHAPES[name], source(name, framework)
    name = twin(name, arrays_of(network))
    if framework == "torch":
        before = weights.torch_arrays(network)
        after = convert.keras_to_torch(convert.torch_to_keras(before, name, shape), name, shape)
    else:
        before = weights.keras_arrays(network)
        after = convert.torch_to_keras(convert.keras_to_torch(before, name, shape), name, shape)
    assert after.keys() == before.keys()
    for key, value in before.items():
        if key.endswith("num_batches_tracked") or (
            key.endswith(("_ih_l0", "_hh_l0")) and "bias" in key and not name.startswith("gru")
        ):
            continue  # Keras counts no batches, and has one bias where torch adds two
        np.testing.assert_array_equal(after[key], value, key)
        assert after[key].dtype == value.dtype
    for cell in ("lstm", "simple_rnn"):
        if f"{cell}.bias_ih_l0" in before:
            one, other = (arrays[f"{cell}.bias_ih_l0"] + arrays[f"{cell}.bias_hh_l0"] for arrays in (before, after))
            np.testing.assert_array_equal(one, other)


def test_both_mobilenets_and_the_folded_one_keep_their_own_function():
    """torchvision pads all around and has another epsilon: its weights in the other's network are another function."""
    names = {framework: twin("mobilenet_v2", arrays_of(source("mobilenet_v2", framework))) for framework in BOTH}
    assert names == {"torch": "mobilenet_v2_torchvision", "keras": "mobilenet_v2_keras"}

    shape, original = SHAPES["mobilenet_v2"], source("mobilenet_v2", "keras")
    in_torch = FoldedMobileNet(folded(weights.keras_arrays(original))).eval()
    opened = convert.Opened(in_torch, "torch", "mobilenet_v2", shape, CLASSES, {})
    unfolded = convert.named(opened)
    assert unfolded.architecture == "mobilenet_v2_keras"
    assert "bn_Conv1.running_mean" in weights.torch_arrays(unfolded.network)
    for network in (in_torch, unfolded.network, convert.moved(opened, "keras-tensorflow").network):
        difference, cosine = compare(original, network, shape)
        assert difference < 1e-5
        assert cosine > 0.9999


# --- what goes wrong is seen ------------------------------------------------------------------------------------------


def noticed(name, framework, other):
    """Whether the comparison that every conversion is put through refuses the other network."""
    shape = SHAPES[name]
    one, two = (wrap(model, input_shape=shape, device="cpu") for model in (source(name, framework), other))
    with pytest.raises(InputError, match="gives other logits than the model: they differ by") as error:
        export.check(one, two, np.random.default_rng(1).random((6, *shape), np.float32), "convert: the model in keras")
    return str(error.value)


def test_another_epsilon_in_batch_normalisation_is_noticed():
    import keras

    network = convert.to_keras(source("resnet18", "torch"), "resnet18", SHAPES["resnet18"], CLASSES)
    norms = [layer for layer in network.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert {layer.epsilon for layer in norms} == {1e-5}
    for layer in norms:
        layer.epsilon = 1e-3  # Keras' own default
    noticed("resnet18", "torch", network)


@pytest.mark.parametrize("name", ["cnn", "dnn"])
def test_a_flatten_in_the_other_order_is_noticed(name, monkeypatch):
    monkeypatch.setattr(convert, "weighted_layers", lambda *asked: [replace(x, flattened=None) for x in LAYERS(*asked)])
    noticed(name, "torch", convert.to_keras(source(name, "torch"), name, SHAPES[name], CLASSES))


def test_gates_in_the_other_order_are_noticed(monkeypatch):
    monkeypatch.setattr(convert, "_swap_gates", lambda array: array)
    noticed("gru", "keras", convert.to_torch(source("gru", "keras"), "gru", SHAPES["gru"], CLASSES))


def test_channels_swapped_are_noticed():
    network = convert.to_keras(source("resnet18", "torch"), "resnet18", SHAPES["resnet18"], CLASSES)
    layer = network.get_layer("conv1")
    layer.set_weights([layer.get_weights()[0][:, :, ::-1]])
    noticed("resnet18", "torch", network)


def test_a_network_without_a_twin():
    import torchvision

    for architecture in ("resnet34", "object:nets:build"):
        with pytest.raises(InputError, match=rf"{architecture} can't be moved.*resnet18, resnet50.*exported to ONNX"):
            convert.to_keras(torchvision.models.resnet34(), architecture, (3, 32, 32), CLASSES)
    with pytest.raises(InputError, match=r"does not fit the architecture.*has shape"):  # a resnet50 but for its widths
        convert.to_keras(torchvision.models.wide_resnet50_2(num_classes=5), "object:nets:wide", (3, 32, 32), 5)


def test_a_network_of_the_users_is_recognised_by_its_weights():
    assert twin("object:nets:build", arrays_of(source("resnet18", "torch"))) == "resnet18"
    assert twin("my.keras", arrays_of(source("gru", "keras"))) == "gru"
    assert twin("my (1).keras", arrays_of(source("cnn_unpooled", "keras"))) == "cnn_unpooled"


SIZED = (
    "cnn_batchnorm(filters=(5, 6), units=9)",
    "gru(units=12, dense=9)",
    "cnn(units=7)",
    "dnn(units=(5, 3))",
    "simple_rnn(dense=3)",
    "rnn(units=4)",
    "cnn_unpooled(filters=(2, 3))",
)


@pytest.mark.parametrize("name", SIZED)
@pytest.mark.parametrize("framework", BOTH)
def test_the_sizes_of_a_network_are_read_off_its_weights(name, framework):
    shape = (2, 8, 10)
    network = architectures.find(name, framework).build(framework, shape, CLASSES)
    there = "net.keras" if framework == "keras" else "object:nets:build"
    assert twin(there, arrays_of(network)) == name == twin(name, arrays_of(network))
    move = convert.to_keras if framework == "torch" else convert.to_torch
    difference, _ = compare(
        network.eval() if framework == "torch" else network, move(network, there, shape, CLASSES), shape
    )
    assert difference < 1e-5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("conv2.weight"), "'conv2' lacks its 'weight'"),
        (lambda a: a.update({"head.weight": a["conv1.bias"]}), "has no 'head.weight'"),
        (lambda a: a.update({"dense1.weight": a["dense1.weight"][:, :-1]}), "'dense1'.*reshape"),
        (lambda a: a.update({"conv1.weight": a["conv1.bias"]}), "'conv1'.*axes"),
    ],
)
def test_arrays_that_are_not_the_architectures(change, message):
    arrays = weights.torch_arrays(source("cnn", "torch"))
    change(arrays)
    with pytest.raises(InputError, match=f"the weights are not of this architecture.*{message}"):
        convert.torch_to_keras(arrays, "cnn", SHAPES["cnn"])


# --- files that say themselves what they hold --------------------------------------------------------------------------

SAID = {"input_range": [0, 255], "mean": [120.0, 110.0, 100.0], "std": [60.0, 50.0, 40.0], "channel_order": "bgr"}


@pytest.mark.parametrize("framework", ["torch", "keras"])
def test_a_keras_file_holds_its_preprocessing(tmp_path, framework):
    """Written, read in safe mode by Keras alone, and moved to torch again: the same function of images in [0, 1]."""
    shape, x = SHAPES["gru"], np.random.default_rng(3).random((5, *SHAPES["gru"]), np.float32)
    layout = "channels-first" if framework == "torch" else "channels-last"
    opened = convert.Opened(source("gru", framework), framework, "gru", shape, CLASSES, {**SAID, "layout": layout})
    expected = wrap(opened.network, input_shape=shape, device="cpu", **opened.options).logits(x)
    made = convert.moved(opened, "keras-tensorflow")
    path = tmp_path / "gru.keras"
    portable.save_keras(made.network, path, name="gru", input_shape=shape, options=made.options)
    model = networks.keras_file(path, "keras-tensorflow")
    assert [layer.name for layer in model.layers] == ["images", "preprocessing", "rows", "gru", "dense1", "logits"]
    np.testing.assert_allclose(np.asarray(model(x.transpose(0, 2, 3, 1))), expected, atol=1e-5)

    read = convert.Opened(model, "keras-tensorflow", "gru.keras", shape, CLASSES, {"layout": "channels-last"})
    back = convert.moved(read, "torch")
    assert (back.architecture, back.options["channel_order"]) == ("gru", "bgr")
    again = wrap(back.network, input_shape=shape, device="cpu", **back.options)
    np.testing.assert_allclose(again.logits(x), expected, atol=1e-5)
    with pytest.raises(InputError, match="holds preprocessing of its own, and more is said"):
        convert.moved(replace(read, options={"mean": [0.5, 0.5, 0.5]}), "torch")


def test_a_softmax_is_taken_off_or_refused(tmp_path):
    import keras

    shape, x = (1, 6, 6), np.random.default_rng(3).random((5, 1, 6, 6), np.float32)
    layers = [keras.layers.Flatten(), keras.layers.Dense(4, activation="softmax")]
    model = keras.Sequential([keras.Input((6, 6, 1)), *layers])
    portable.save_keras(model, tmp_path / "m.keras", name="m", input_shape=shape, options={"output": "probabilities"})
    read = networks.keras_file(tmp_path / "m.keras", "keras-tensorflow")
    expected = wrap(model, output="probabilities").logits(x)
    np.testing.assert_allclose(np.asarray(read(x.transpose(0, 2, 3, 1))), expected, atol=1e-6)

    class Own(keras.Model):
        def call(self, x):
            return keras.ops.softmax(keras.ops.reshape(x, (-1, 36)))

    with pytest.raises(InputError, match="softmax can't be taken off"):
        portable.save_keras(
            Own(), tmp_path / "o.keras", name="o", input_shape=shape, options={"output": "probabilities"}
        )
    assert {file.name for file in tmp_path.iterdir()} == {"m.keras"}


def test_a_safetensors_file_alone_is_a_model(tmp_path):
    """Also of more classes than the data have."""
    x, network = datasets.load(DIGITS, base=BASE).x, architectures.find("cnn", "torch").build("torch", (1, 8, 8), 12)
    said = {"mean": [0.4], "std": [0.3]}
    path = tmp_path / "mine.safetensors"
    portable.save_torch(network, path, architecture="cnn", input_shape=(1, 8, 8), classes=12, options=said)
    model = model_spec(name="net", weights="mine.safetensors")
    ref = load.prepare(model, data=DIGITS, base=tmp_path)
    assert (ref.architecture, ref.classes, ref.options["mean"]) == ("cnn", 12, [0.4])
    assert load.is_prepared(model, data=DIGITS, base=tmp_path) == ref
    expected = wrap(network.eval(), input_shape=(1, 8, 8), device="cpu", **said).logits(x)
    np.testing.assert_array_equal(load.open_model(ref, device="cpu").logits(x), expected)

    for content, message in [
        ({}, "needs an `architecture`"),
        ({"architecture": "cnnn"}, "unknown architecture 'cnnn'"),
        ({"architecture": "cnn", "options": {"mean": "x"}}, "says of itself what can't be"),
    ]:
        path.write_bytes(save(weights.torch_arrays(network), {"sparring": json.dumps(content)}))
        with pytest.raises(InputError, match=message):
            load.prepare(model, data=DIGITS, base=tmp_path)
    with pytest.raises(InputError, match=r"framework: .* holds a network of torch"):
        load.prepare(model.model_copy(update={"framework": "keras"}), data=DIGITS, base=tmp_path)


# --- in a suite -------------------------------------------------------------------------------------------------------


def prepare(others=None, **keys):
    return load.prepare(model_spec(**{"name": "net", **keys}), data=DIGITS, base=BASE, others=others or {})


def test_a_suites_model_is_anothers_moved_and_moved_back():
    x = datasets.load(DIGITS, base=BASE).x
    first = prepare(architecture="cnn", mean=(0.3,), std=(0.5,))
    second = prepare({"net": first}, name="k", convert="net", framework="keras")
    third = prepare({"k": second}, name="t", convert="k", framework="torch")
    assert [ref.framework for ref in (first, second, third)] == ["torch", "keras-tensorflow", "torch"]
    assert {ref.architecture for ref in (first, second, third)} == {"cnn"}
    assert [ref.options["layout"] for ref in (first, second, third)] == [
        *(f"channels-{x}" for x in ("first", "last", "first"))
    ]
    assert len({ref.digest for ref in (first, second, third)}) == 3
    logits = [load.open_model(ref, device="cpu").logits(x) for ref in (first, second, third)]
    np.testing.assert_allclose(logits[1], logits[0], atol=1e-5)
    np.testing.assert_array_equal(logits[2], logits[0])
    asked = model_spec(name="k", convert="net", framework="keras")
    assert load.is_prepared(asked, data=DIGITS, base=BASE, others={"net": first}) == second
    other = prepare(architecture="cnn", mean=(0.2,), std=(0.5,))
    assert load.is_prepared(asked, data=DIGITS, base=BASE, others={"net": other}) is None


def test_parameters_of_an_architecture_travel_with_it(tmp_path):
    x, name = datasets.load(DIGITS, base=BASE).x, "cnn_unpooled(units=9, dropout=0.1)"
    first = prepare(architecture=name)
    second = prepare({"net": first}, name="k", convert="net", framework="keras")
    exported = prepare({"net": first}, name="o", export="net")
    assert {ref.architecture for ref in (first, second, exported)} == {name}
    portable.save_torch(
        networks.build(name, "torch", (1, 8, 8), 10),
        tmp_path / "n.safetensors",
        architecture=name,
        input_shape=(1, 8, 8),
        classes=10,
        options={},
    )
    file = load.prepare(model_spec(name="f", weights="n.safetensors"), data=DIGITS, base=tmp_path)
    assert file.architecture == name
    for ref in (second, exported):
        logits = load.open_model(ref, device="cpu").logits(x)
        np.testing.assert_allclose(logits, load.open_model(first, device="cpu").logits(x), atol=1e-5)


def test_an_ensemble_is_moved_member_by_member():
    x = datasets.load(DIGITS, base=BASE).x
    members = {
        "a": prepare(name="a", architecture="dnn"),
        "b": prepare(name="b", architecture="rnn", framework="keras"),
    }
    both = prepare(members, name="both", ensemble=("a", "b"), combine="logits")
    moved = prepare({"both": both}, convert="both", framework="torch")
    assert (moved.frameworks, [member.name for member in moved.members]) == (("torch",), ["a", "b"])
    assert moved.members[0] == members["a"]  # which was there already
    logits = [load.open_model(ref, device="cpu").logits(x) for ref in (both, moved)]
    np.testing.assert_allclose(*logits, atol=1e-5)
    assert (
        load.is_prepared(
            model_spec(name="net", convert="both", framework="torch"), data=DIGITS, base=BASE, others={"both": both}
        )
        == moved
    )


def test_what_cannot_be_converted():
    net = prepare(architecture="dnn")
    exported = prepare({"net": net}, name="o", export="net")
    for others, framework, message in [
        ({"net": net}, "torch", "'net' is on torch already"),
        ({"net": exported}, "keras", "'o' is an ONNX graph"),
        ({}, "keras", "unknown model 'net'"),
    ]:
        with pytest.raises(InputError, match=f"convert: {message}"):
            prepare(others, name="k", convert="net", framework=framework)
    with pytest.raises(ValueError, match="mean: `convert` takes it from 'net'"):
        prepare({"net": net}, name="k", convert="net", framework="keras", mean=(0.5,))


ELSEWHERE = """
import sys, numpy as np; sys.path.insert(0, {tests!r}); from test_convert import *
found = [compare(source(name, "torch"), moved(name, "torch"), SHAPES[name]) for name in ("cnn", "gru", "resnet18")]
print(max(a for a, _ in found) < 1e-5 and min(b for _, b in found) > .9999, len(found))
"""


def test_keras_on_torch_computes_the_same(fresh):
    assert fresh(ELSEWHERE.format(tests=str(Path(__file__).parent)), "torch") == "True 3"
