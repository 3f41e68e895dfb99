"""The first difference and its cause are found: torch and Keras networks against files and copies with one mistake."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import keras
import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from sparring.adapters import wrap
from sparring.models.layers.layer import Layer
from sparring.models.layers.record import record
from sparring.models.networks import export
from sparring.suites.certify.certificate import Difference
from sparring.suites.certify.first_difference import first_difference
from sparring.suites.certify.matching import match

SHAPE = (3, 16, 16)
X = np.random.default_rng(0).random((7, *SHAPE), np.float32)
FOLDER = Path(mkdtemp(prefix="sparring-layers-"))


@lru_cache
def torch_net() -> nn.Sequential:
    """A network with stride and padding, batch normalization, a clipped activation, a smooth one, pooling, a square layer."""
    torch.manual_seed(0)
    net = nn.Sequential()
    parts: dict[str, nn.Module] = {
        "conv1": nn.Conv2d(3, 6, 3, stride=2, padding=1),
        "bn1": nn.BatchNorm2d(6),
        "relu1": nn.ReLU6(),
        "conv2": nn.Conv2d(6, 8, 3, padding=1),
        "gelu": nn.GELU(),
        "pool": nn.MaxPool2d(2),
        "flatten": nn.Flatten(),
        "dense1": nn.Linear(128, 16),
        "relu2": nn.ReLU(),
        "dense2": nn.Linear(16, 16),
        "relu3": nn.ReLU(),
        "logits": nn.Linear(16, 10),
    }
    for name, part in parts.items():
        net.add_module(name, part)
    with torch.no_grad():
        net.conv1.weight.mul_(8)  # so that the clipping shows
        net.bn1.running_mean.uniform_(-0.5, 0.5)
        net.bn1.running_var.uniform_(0.2, 3)
        net.bn1.weight.uniform_(0.5, 2)
        net.bn1.bias.uniform_(-0.5, 1)
        net.logits.weight.mul_(5)
    return net.eval()


def layers(network: Any, x: np.ndarray = X, **options: Any) -> list[Layer]:
    extra = {"input_shape": x.shape[1:]} if isinstance(network, nn.Module) else {}
    recorded, why = record(network, wrap(network, device="cpu", **extra, **options), x, options)
    assert why == ""
    return recorded


@lru_cache
def of_torch() -> tuple[Layer, ...]:
    return tuple(layers(torch_net()))


@lru_cache
def onnx_file() -> onnx.ModelProto:
    """The same network as the exporter writes it: batch normalization is folded into the convolution."""
    path = FOLDER / "net.onnx"
    export.export(wrap(torch_net(), input_shape=SHAPE, device="cpu"), torch_net(), path, {})
    return onnx.load(path)


def of_file(model: onnx.ModelProto, x: np.ndarray = X) -> list[Layer]:
    path = FOLDER / "altered.onnx"
    onnx.save(model, path)
    return layers(str(path), x)


# --- an ONNX file with one mistake


def node(model: onnx.ModelProto, operator: str, which: int = 0) -> Any:
    return [one for one in model.graph.node if one.op_type == operator][which]


def weights(model: onnx.ModelProto, one: Any, place: int, change: Callable[[np.ndarray], np.ndarray]) -> None:
    tensor = next(each for each in model.graph.initializer if each.name == one.input[place])
    changed = np.ascontiguousarray(change(numpy_helper.to_array(tensor)), np.float32)
    tensor.CopyFrom(numpy_helper.from_array(changed, tensor.name))


def attributes(one: Any, **values: Any) -> None:
    kept = [attribute for attribute in one.attribute if attribute.name not in values]
    del one.attribute[:]
    one.attribute.extend([*kept, *(helper.make_attribute(key, value) for key, value in values.items())])


def bgr(model: onnx.ModelProto) -> None:
    weights(model, node(model, "Conv"), 1, lambda w: w[:, ::-1])


def two_filters(model: onnx.ModelProto) -> None:
    weights(model, node(model, "Conv", 1), 1, lambda w: w[[0, 4, 2, 3, 1, 5, 6, 7]])


def two_filters_under_batch_normalization(model: onnx.ModelProto) -> None:
    weights(model, node(model, "Conv"), 1, lambda w: w[[0, 4, 2, 3, 1, 5]])


def one_weight(model: onnx.ModelProto) -> None:
    weights(model, node(model, "Conv", 1), 1, lambda w: w + 0.5 * (np.arange(w.size) == 40).reshape(w.shape))


def no_bias(model: onnx.ModelProto) -> None:
    weights(model, node(model, "Conv", 1), 2, np.zeros_like)


def padding(model: onnx.ModelProto) -> None:
    attributes(node(model, "Conv"), pads=[0, 0, 1, 1])


def not_clipped(model: onnx.ModelProto) -> None:
    clip = node(model, "Clip")
    clip.op_type = "Relu"
    del clip.input[1:]


def other_gelu(model: onnx.ModelProto) -> None:
    attributes(node(model, "Gelu"), approximate="tanh")


def average(model: onnx.ModelProto) -> None:
    pool = node(model, "MaxPool")
    kept = [attribute for attribute in pool.attribute if attribute.name in ("kernel_shape", "strides")]
    del pool.attribute[:]
    pool.attribute.extend(copy.deepcopy(kept))
    pool.op_type = "AveragePool"


def flattened_otherwise(model: onnx.ModelProto) -> None:
    weights(model, node(model, "Gemm"), 1, lambda w: w.reshape(16, 8, 4, 4).transpose(0, 2, 3, 1).reshape(16, -1))


def transposed(model: onnx.ModelProto) -> None:
    weights(model, node(model, "Gemm", 1), 1, np.transpose)


def no_activation(model: onnx.ModelProto) -> None:
    node(model, "Relu", -1).op_type = "Identity"


def activation_too_many(model: onnx.ModelProto) -> None:
    last = node(model, "Gemm", 2)
    at = [one.name for one in model.graph.node].index(last.name)
    model.graph.node.insert(at, helper.make_node("Tanh", [last.input[0]], ["more"], name="more"))
    last.input[0] = "more"


def doubled(model: onnx.ModelProto) -> None:
    for place in (1, 2):
        weights(model, node(model, "Gemm", 2), place, lambda w: 2 * w)


def softmax(model: onnx.ModelProto, name: str = "softmax") -> None:
    output = model.graph.output[0]
    model.graph.node.append(helper.make_node("Softmax", [output.name], [name], name=name))
    output.name = name


def two_softmaxes(model: onnx.ModelProto) -> None:
    softmax(model)
    softmax(model, "again")


FILES: list[tuple[Callable[[onnx.ModelProto], None], str, str]] = [
    (bgr, "bn1", "the three channels are reversed (RGB against BGR)"),
    (two_filters, "conv2", "its filters are in another order: 1 and 4 are swapped"),
    (two_filters_under_batch_normalization, "bn1", "its filters are in another order: 1 and 4 are swapped"),
    (one_weight, "conv2", "its weights differ in 1 of 432 numbers"),
    (no_bias, "conv2", "the bias is missing in B"),
    (padding, "conv1", "padding (top, left, bottom, right): (1, 1, 1, 1) in A, (0, 0, 1, 1) in B"),
    (not_clipped, "relu1", "the activation is ReLU6 (clipped at 6) in A and ReLU in B"),
    (other_gelu, "gelu", "the activation is GELU by erf in A and GELU by tanh in B"),
    (average, "pool", "pooling: max in A, average in B"),
    (flattened_otherwise, "dense1", "that of 8 x 16 numbers flattened the other way round"),
    (transposed, "dense2", "its weights are transposed"),
    (no_activation, "relu3", "relu3 (ReLU) of A is missing in B"),
    (activation_too_many, "logits", "more (Tanh) of B is not in A"),
    (doubled, "logits", "what B gives is 2 times what A gives"),
    (softmax, "output", "what B gives is the softmax of what A gives"),
    (two_softmaxes, "output", "what B gives is the softmax of what A gives, taken twice"),
]


@pytest.mark.parametrize(("mistake", "layer", "why"), FILES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_mistake_in_an_onnx_file(mistake: Callable[[onnx.ModelProto], None], layer: str, why: str) -> None:
    model = copy.deepcopy(onnx_file())
    mistake(model)
    difference = first_difference(of_torch(), of_file(model))
    assert difference.layer_a == layer, difference
    assert why in difference.why


def test_another_epsilon_is_read_off_the_outputs_where_it_was_folded_away() -> None:
    """It shows in no parameter: only the factors of the channels tell."""
    folded = copy.deepcopy(onnx_file())
    variance = torch_net().bn1.running_var.numpy()
    factor = np.sqrt((variance + 1e-5) / (variance + 1e-3))
    bn = torch_net().bn1
    weights(folded, node(folded, "Conv"), 1, lambda w: w * factor[:, None, None, None])
    weights(
        folded, node(folded, "Conv"), 2, lambda b: (b - bn.bias.detach().numpy()) * factor + bn.bias.detach().numpy()
    )
    theirs = of_file(folded)
    difference = first_difference(of_torch(), theirs)
    assert (difference.layer_a, difference.after) == ("bn1", ("images", "images"))
    assert "another epsilon: 1e-05 in A, 0.001 in B" in difference.why
    back = first_difference(theirs, of_torch())
    assert (back.layer_b, "0.001 in A, 1e-05 in B" in back.why) == ("bn1", True)


def test_a_right_file_differs_nowhere_though_its_layers_are_others() -> None:
    a, b = of_torch(), of_file(onnx_file())
    matched = match(a, b)
    lost = [layer.name for layer, good in zip(a, matched.good_a, strict=True) if not good]
    assert lost == ["conv1"]  # which is folded
    difference = first_difference(a, b)
    assert "no layer stands out" in difference.why


# --- a Keras copy with one mistake


def keras_net(
    *,
    epsilon: float = 1e-5,
    bgr: bool = False,
    filters: bool = False,
    same: bool = False,
    clip: bool = True,
    smooth: bool = True,
    pool: Any = keras.layers.MaxPooling2D,
    flatten: bool = True,
    transpose: bool = False,
    softmax: bool = False,
    rescale: bool = False,
    activate: bool = True,
) -> Any:
    """The same network in Keras: a layer of its own pads the image as torch does; activations in and out of layers."""
    L = keras.layers
    x = images = keras.Input((16, 16, 3))
    if rescale:
        x = L.Rescaling(2.0, -1.0, name="rescaling")(x)
    x = L.Conv2D(6, 3, strides=2, padding="same", name="conv1")(x) if same else x
    x = x if same else L.Conv2D(6, 3, strides=2, name="conv1")(L.ZeroPadding2D(1, name="pad")(x))
    x = L.BatchNormalization(epsilon=epsilon, name="bn1")(x)
    x = L.ReLU(6 if clip else None, name="relu1")(x)
    x = L.Conv2D(8, 3, padding="same", name="conv2")(x)
    x = L.Activation(lambda z: keras.activations.gelu(z, approximate=not smooth), name="gelu")(x)
    x = L.Flatten(name="flatten")(pool(2, name="pool")(x))
    x = L.Dense(16, "relu", name="dense1")(x)
    x = L.Dense(16, "relu" if activate else None, name="dense2")(x)
    model = keras.Model(images, L.Dense(10, "softmax" if softmax else None, name="logits")(x))
    state = {key: value.numpy() for key, value in torch_net().state_dict().items()}
    kernel = state["conv1.weight"].transpose(2, 3, 1, 0)
    kernel = kernel[:, :, ::-1] if bgr else kernel[..., [0, 4, 2, 3, 1, 5]] if filters else kernel
    dense = state["dense1.weight"]
    dense = dense.reshape(16, 8, 4, 4).transpose(0, 2, 3, 1).reshape(16, -1) if flatten else dense
    square = state["dense2.weight"]
    values = {
        "conv1": [kernel, state["conv1.bias"]],
        "bn1": [state[f"bn1.{key}"] for key in ("weight", "bias", "running_mean", "running_var")],
        "conv2": [state["conv2.weight"].transpose(2, 3, 1, 0), state["conv2.bias"]],
        "dense1": [dense.T, state["dense1.bias"]],
        "dense2": [square if transpose else square.T, state["dense2.bias"]],
        "logits": [state["logits.weight"].T, state["logits.bias"]],
    }
    for name, arrays in values.items():
        model.get_layer(name).set_weights(arrays)
    return model


COPIES: list[tuple[dict[str, Any], str, str, str]] = [
    ({"epsilon": 1e-3}, "bn1", "bn1", "epsilon: 1e-05 in A, 0.001 in B"),
    ({"epsilon": 2e-5}, "bn1", "bn1", "epsilon: 1e-05 in A, 2e-05 in B"),
    ({"bgr": True}, "conv1", "conv1", "RGB against BGR"),
    ({"filters": True}, "conv1", "conv1", "its filters are in another order: 1 and 4 are swapped"),
    ({"same": True}, "conv1", "conv1", "(1, 1, 1, 1) in A, (0, 0, 1, 1) in B"),
    ({"clip": False}, "relu1", "relu1", "ReLU6 (clipped at 6) in A and ReLU in B"),
    ({"smooth": False}, "gelu", "gelu", "GELU by erf in A and GELU by tanh in B"),
    ({"pool": keras.layers.AveragePooling2D}, "pool", "pool", "pooling: max in A, average in B"),
    ({"flatten": False}, "dense1", "dense1", "they were not put into that order"),
    ({"transpose": True}, "dense2", "dense2", "its weights are transposed"),
    ({"softmax": True}, "output", "logits.softmax", "what B gives is the softmax of what A gives"),
    ({"rescale": True}, "conv1", "rescaling", "rescaling (Rescaling) of B is not in A"),
    ({"activate": False}, "relu3", "logits", "relu3 (ReLU) of A is missing in B"),
]


@pytest.mark.parametrize(
    ("mistake", "layer_a", "layer_b", "why"), COPIES, ids=lambda v: str(v) if isinstance(v, dict) else ""
)
def test_a_mistake_in_a_keras_copy(mistake: dict[str, Any], layer_a: str, layer_b: str, why: str) -> None:
    difference = first_difference(of_torch(), layers(keras_net(**mistake)))
    assert (difference.layer_a, difference.layer_b) == (layer_a, layer_b)
    assert why in difference.why


def test_a_right_copy_and_preprocessing_that_only_one_has() -> None:
    right = layers(keras_net())
    assert "no layer stands out" in first_difference(of_torch(), right).why
    assert match(of_torch(), right).good_a == (True,) * len(of_torch())
    normalized = layers(torch_net(), mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))
    difference = first_difference(normalized, right)
    assert (difference.layer_a, difference.layer_b) == ("input", "images")
    assert "normalized otherwise" in difference.why
    assert "a factor (0.2, 0.25, 0.3) and a constant (0.5, 0.4, 0.3)" in difference.why
    difference = first_difference(right, layers(torch_net(), channel_order="bgr"))
    assert (difference.layer_b, "RGB against BGR" in difference.why) == ("input", True)


# --- recurrent networks, and from Keras to ONNX


class Rows(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.logits = nn.LSTM(8, 6, batch_first=True), nn.Linear(6, 4)

    def forward(self, x: Any) -> Any:
        return self.logits(self.rnn(x.squeeze(1))[0][:, -1])


def keras_rows(module: Rows, gates: list[int]) -> Any:
    L = keras.layers
    images = keras.Input((9, 8, 1))
    model = keras.Model(images, L.Dense(4, name="logits")(L.LSTM(6, name="rnn")(L.Reshape((9, 8))(images))))
    state = {key: value.detach().numpy() for key, value in module.state_dict().items()}

    def ordered(array: np.ndarray) -> np.ndarray:
        return np.concatenate([np.split(array, 4)[gate] for gate in gates]).T

    bias = ordered(state["rnn.bias_ih_l0"]) + ordered(state["rnn.bias_hh_l0"])
    model.get_layer("rnn").set_weights([*map(ordered, (state["rnn.weight_ih_l0"], state["rnn.weight_hh_l0"])), bias])
    model.get_layer("logits").set_weights([state["logits.weight"].T, state["logits.bias"]])
    return model


def test_gates_in_another_order_in_keras_and_in_the_file_that_it_exports() -> None:
    torch.manual_seed(0)
    module = Rows().eval()
    x = np.random.default_rng(0).random((7, 1, 9, 8), np.float32)
    mine = layers(module, x)
    assert "no layer stands out" in first_difference(mine, layers(keras_rows(module, [0, 1, 2, 3]), x)).why
    wrong = keras_rows(module, [0, 2, 1, 3])
    path = FOLDER / "rows.onnx"
    export.export(wrap(wrong, device="cpu"), wrong, path, {})
    for theirs in (layers(wrong, x), layers(str(path), x)):
        difference = first_difference(mine, theirs)
        assert difference.layer_a == "rnn"
        assert (
            "for the gates input, forget, cell, output B has those that A has for input, cell, forget, output"
            in difference.why
        )


def test_from_keras_to_a_file_with_a_mistake() -> None:
    model = keras_net(smooth=False)  # tf2onnx has no erfc
    mine = layers(model)
    path = FOLDER / "keras.onnx"
    export.export(wrap(model, device="cpu"), model, path, {})
    right = onnx.load(path)
    assert "no layer stands out" in first_difference(mine, of_file(right)).why

    def with_mistake(mistake: Callable[[onnx.ModelProto], None]) -> Difference:
        altered = copy.deepcopy(right)
        mistake(altered)
        return first_difference(mine, of_file(altered))

    assert "its filters are in another order: 1 and 4 are swapped" in with_mistake(two_filters).why
    assert with_mistake(two_filters).layer_a == "conv2"
    assert "RGB against BGR" in with_mistake(bgr).why
    assert with_mistake(softmax).why == "what B gives is the softmax of what A gives"
    square = next(one for one in right.graph.node if one.op_type in ("MatMul", "Gemm") and "dense2" in one.name)

    def turn(altered: onnx.ModelProto) -> None:
        weights(altered, next(one for one in altered.graph.node if one.name == square.name), 1, np.transpose)

    assert (with_mistake(turn).layer_a, "transposed" in with_mistake(turn).why) == ("dense2", True)


def test_a_bias_that_stands_in_the_batch_normalization_is_not_missing() -> None:
    """One convolution with a bias, and one without that a batch normalization of no other effect follows."""
    torch.manual_seed(0)
    with_bias, without_bias = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3, bias=False)
    normalization = nn.BatchNorm2d(4, eps=1e-3)
    with torch.no_grad():
        without_bias.weight.copy_(with_bias.weight)
        normalization.weight.fill_(float(np.sqrt(1.001)))
        normalization.bias.copy_(with_bias.bias)
    last = [nn.Flatten(), nn.Linear(4 * 14 * 14, 3)]
    one, other = nn.Sequential(with_bias, *last).eval(), nn.Sequential(without_bias, normalization, *last).eval()
    assert "no layer stands out" in first_difference(layers(one), layers(other)).why
    normalization.eps = 3e-3
    difference = first_difference(layers(one), layers(other))
    assert (difference.layer_a, difference.layer_b) == ("0", "1")
    assert "another epsilon: 0.001 in A, 0.003 in B" in difference.why


# --- what can't be looked into


def test_a_shortcut_beside_the_difference_hides_it_not() -> None:
    """A match in a branch that doesn't take the wrong layer's output tells nothing of it."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.bn, self.down = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(3, 4, 1)
            self.logits = nn.Linear(4, 3)

        def forward(self, x: Any) -> Any:
            return self.logits((self.bn(self.conv(x)) + self.down(x)).mean((2, 3)))

    torch.manual_seed(0)
    one = Block().eval()
    other = copy.deepcopy(one)
    other.bn.eps = 0.1
    difference = first_difference(layers(one), layers(other))
    assert (difference.layer_a, difference.why) == ("bn", "epsilon: 1e-05 in A, 0.1 in B")


def test_a_network_that_cant_be_looked_into_still_has_images_and_output() -> None:
    path = FOLDER / "net.onnx"
    onnx_file()
    classifier = wrap(str(path), device="cpu")
    recorded, why = record(str(FOLDER / "gone.onnx"), classifier, X, {})
    assert [layer.name for layer in recorded] == ["images", "output"]
    assert "gone.onnx" in why
    wrong = [recorded[0], Layer("output", "output", 3 * recorded[1].values, (0,))]
    assert first_difference(recorded, wrong).why == "what B gives is 3 times what A gives"
