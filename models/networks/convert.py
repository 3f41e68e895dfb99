"""Weights moved between torch and Keras: the arrays of a named architecture, and its networks.

The arrays are those of ``weights.torch_arrays`` and ``weights.keras_arrays``, so the two frameworks needn't be in one
process. What differs is the order of the axes; a dense layer behind a Flatten, which Keras sees with the channels last;
the order of a GRU's gates; and the biases of an LSTM and a plain cell, of which torch has two that are added.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from sparring.adapters.errors import InputError, first_line
from sparring.models.architectures import catalogue as architectures
from sparring.models.architectures import mobilenet
from sparring.models.architectures.architecture import parse
from sparring.models.architectures.twins import Layer, Shape, twin, weighted_layers
from sparring.models.networks import portable, weights
from sparring.models.networks.weights import Arrays

CONVERT_VERSION = 1
"""Part of the identity of a converted model: raised when the same model is converted to other numbers."""

SCALES = ("input_range", "mean", "std", "channel_order")
"""The options that say what is done to an image of the box."""

Array = npt.NDArray[Any]
Parts = dict[str, Array]
"""What one layer holds, by the last part of its arrays' names."""


@dataclass(frozen=True)
class Opened:
    """A model in its own framework, and what is known of it."""

    network: Any
    framework: str
    architecture: str
    """its name, or where it comes from"""
    input_shape: Shape
    classes: int
    options: Mapping[str, Any]
    """with which ``wrap`` takes it"""


def moved(source: Opened, framework: str) -> Opened:
    """The same classifier in ``torch``, or in Keras on this process's backend, where a Keras model stays as it is.

    A layer of preprocessing in front of a Keras model, as ``portable.save_keras`` puts it, becomes options. Raises
    ``InputError`` as ``to_torch`` does, and for a Keras model that ends in a softmax.
    """
    network, shape = source.network, source.input_shape
    if source.framework.partition("-")[0] == framework.partition("-")[0]:
        return replace(source, framework=framework)
    if framework != "torch":
        name = twin(source.architecture, weights.torch_arrays(network))
        network = to_keras(network, source.architecture, shape, source.classes)
        options = {**source.options, "layout": "channels-last"}
        return replace(source, network=network, framework=framework, architecture=name, options=options)
    if source.options.get("output") == "probabilities":
        raise InputError(f"the weights of {source.architecture} can't be moved to torch: its twin gives logits")
    arrays, inside = portable.unwrapped(weights.keras_arrays(network))
    if inside and any(source.options.get(key) not in (None, "rgb", [0.0, 1.0], (0.0, 1.0)) for key in SCALES):
        raise InputError(f"{source.architecture} holds preprocessing of its own, and more is said: leave it out")
    name = twin(source.architecture, arrays)
    network = _in_torch(arrays, source.architecture, shape, source.classes)
    options = {**source.options, **inside, "layout": "channels-first"}
    return replace(source, network=network, framework=framework, architecture=name, options=options)


def named(source: Opened) -> Opened:
    """A torch classifier as the network of an architecture's name, for a file that says no more than that.

    One that is called by its name is it already; a network of the user's is recognized, and a folded MobileNet v2
    becomes one with batch normalization. Raises ``InputError`` for a network that is not recognized.
    """
    arrays = weights.torch_arrays(source.network)
    if parse(source.architecture)[0].isidentifier() and "Conv1.bias" not in arrays:
        return source
    name, shape = twin(source.architecture, arrays), source.input_shape
    network = _in_torch(torch_to_keras(arrays, name, shape), name, shape, source.classes)
    return replace(source, network=network, architecture=name)


def to_torch(model: Any, architecture: str, input_shape: Shape, classes: int) -> Any:
    """The torch module, in evaluation mode, that computes what a Keras model of a named architecture does.

    A Keras model takes (N, H, W, C), the module (N, C, H, W), in the same range. ``architecture`` is its name, or where
    it comes from, as for ``twin``. Raises ``InputError`` for a network without a twin.
    """
    return _in_torch(weights.keras_arrays(model), architecture, input_shape, classes)


def to_keras(module: Any, architecture: str, input_shape: Shape, classes: int) -> Any:
    """The Keras model, on this process's backend, that computes what a torch module of a named architecture does.

    A folded MobileNet v2 becomes a ``keras.applications.MobileNetV2``. The rest as for ``to_torch``.
    """
    arrays = weights.torch_arrays(module)
    name = twin(architecture, arrays)
    network = architectures.find(name, "keras").build("keras", input_shape, classes)
    weights.put_keras(network, torch_to_keras(arrays, name, input_shape), f"the torch module ({architecture})")
    return network


def _in_torch(arrays: Arrays, architecture: str, input_shape: Shape, classes: int) -> Any:
    name = twin(architecture, arrays)
    network = architectures.find(name, "torch").build("torch", input_shape, classes)
    weights.put_torch(network, keras_to_torch(arrays, name, input_shape), f"the Keras model ({architecture})")
    return network.eval()


def torch_to_keras(arrays: Mapping[str, Array], architecture: str, input_shape: Shape) -> Arrays:
    """A torch state dict of the architecture (a name that ``twin`` gave) as the arrays of its Keras model.

    Raises ``InputError`` naming an array that lacks or that the architecture hasn't.
    """
    layers = weighted_layers(architecture, input_shape)
    folded = architecture == "mobilenet_v2_keras" and "Conv1.bias" in arrays
    if folded:
        layers = tuple(layer for layer in layers if layer.kind != "norm")
    split = _split(arrays, ".", [layer.torch for layer in layers])
    moved: Arrays = {}
    for layer in layers:
        parts = _moved(_TO_KERAS[layer.kind], split[layer.torch], layer.torch, layer)
        moved.update({f"{layer.keras}/{name}": part for name, part in parts.items()})
    return mobilenet.unfold(moved) if folded else moved


def keras_to_torch(arrays: Mapping[str, Array], architecture: str, input_shape: Shape) -> Arrays:
    """The arrays of a Keras model of the architecture as a torch state dict; raises as ``torch_to_keras`` does."""
    layers = weighted_layers(architecture, input_shape)
    split = _split(arrays, "/", [layer.keras for layer in layers])
    moved: Arrays = {}
    for layer in layers:
        parts = _moved(_TO_TORCH[layer.kind], split[layer.keras], layer.keras, layer)
        moved.update({f"{layer.torch}.{name}": part for name, part in parts.items()})
    return moved


def _split(arrays: Mapping[str, Array], separator: str, layers: list[str]) -> dict[str, Parts]:
    """The arrays by layer. In Keras a cell has a name of its own between the layer's and the part's."""
    found: dict[str, Parts] = {layer: {} for layer in layers}
    for key, value in arrays.items():
        place, _, part = key.rpartition(separator)
        layer = place.partition("/")[0]
        if layer not in found:
            raise InputError(f"the weights are not of this architecture, which has no {key!r}")
        found[layer][part] = value
    return found


def _moved(move: Callable[[Parts, Layer], Parts], parts: Parts, name: str, layer: Layer) -> Parts:
    try:
        return {key: np.ascontiguousarray(part) if part.ndim else part for key, part in move(parts, layer).items()}
    except KeyError as exc:
        raise InputError(f"the weights are not of this architecture: {name!r} lacks its {exc.args[0]!r}") from exc
    except ValueError as exc:  # axes that are not there, sizes that don't multiply to the layer's
        raise InputError(f"the weights are not of this architecture: {name!r}: {first_line(exc)}") from exc


# --- one layer ------------------------------------------------------------------------------------------------------


def _with_bias(key: str, weight: Array, parts: Parts) -> Parts:
    return {key: weight, **({"bias": parts["bias"]} if "bias" in parts else {})}


def _conv_to_keras(parts: Parts, _: Layer) -> Parts:
    return _with_bias("kernel", parts["weight"].transpose(2, 3, 1, 0), parts)


def _conv_to_torch(parts: Parts, _: Layer) -> Parts:
    return _with_bias("weight", parts["kernel"].transpose(3, 2, 0, 1), parts)


def _depthwise_to_keras(parts: Parts, _: Layer) -> Parts:
    return _with_bias("kernel", parts["weight"].transpose(2, 3, 0, 1), parts)


def _depthwise_to_torch(parts: Parts, _: Layer) -> Parts:
    return _with_bias("weight", parts["kernel"].transpose(2, 3, 0, 1), parts)


def _dense_to_keras(parts: Parts, layer: Layer) -> Parts:
    weight = parts["weight"]
    if layer.flattened:
        weight = weight.reshape(-1, *layer.flattened).transpose(0, 2, 3, 1).reshape(weight.shape)
    return _with_bias("kernel", weight.T, parts)


def _dense_to_torch(parts: Parts, layer: Layer) -> Parts:
    weight = parts["kernel"].T
    if layer.flattened:
        channels, height, width = layer.flattened
        weight = weight.reshape(-1, height, width, channels).transpose(0, 3, 1, 2).reshape(weight.shape)
    return _with_bias("weight", weight, parts)


_NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}


def _norm_to_keras(parts: Parts, _: Layer) -> Parts:
    return {theirs: parts[ours] for ours, theirs in _NORM.items()}


def _norm_to_torch(parts: Parts, _: Layer) -> Parts:
    moved = {ours: parts[theirs] for ours, theirs in _NORM.items()}
    return {**moved, "num_batches_tracked": np.zeros((), np.int64)}


def _cell_to_keras(parts: Parts, layer: Layer) -> Parts:
    kernel, recurrent = parts["weight_ih_l0"].T, parts["weight_hh_l0"].T
    one, other = parts["bias_ih_l0"], parts["bias_hh_l0"]
    bias = one + other
    if layer.kind == "gru":
        kernel, recurrent, bias = map(_swap_gates, (kernel, recurrent, np.stack([one, other])))
    return {
        f"{layer.kind}_cell/{key}": part
        for key, part in (("kernel", kernel), ("recurrent_kernel", recurrent), ("bias", bias))
    }


def _cell_to_torch(parts: Parts, layer: Layer) -> Parts:
    kernel, recurrent, bias = parts["kernel"], parts["recurrent_kernel"], parts["bias"]
    if layer.kind == "gru":
        kernel, recurrent, bias = map(_swap_gates, (kernel, recurrent, bias))
        one, other = bias
    else:
        one, other = bias, np.zeros_like(bias)
    return {"weight_ih_l0": kernel.T, "weight_hh_l0": recurrent.T, "bias_ih_l0": one, "bias_hh_l0": other}


def _swap_gates(array: Array) -> Array:
    """torch's reset, update, new and Keras' update, reset, new: the first two thirds of the last axis change places."""
    first, second, third = np.split(array, 3, axis=-1)
    return np.concatenate([second, first, third], axis=-1)


_Move = Callable[[Parts, Layer], Parts]
_CELLS = ("lstm", "gru", "simple_rnn")
_TO_KERAS: dict[str, _Move] = {
    "conv": _conv_to_keras,
    "depthwise": _depthwise_to_keras,
    "dense": _dense_to_keras,
    "norm": _norm_to_keras,
    **dict.fromkeys(_CELLS, _cell_to_keras),
}
_TO_TORCH: dict[str, _Move] = {
    "conv": _conv_to_torch,
    "depthwise": _depthwise_to_torch,
    "dense": _dense_to_torch,
    "norm": _norm_to_torch,
    **dict.fromkeys(_CELLS, _cell_to_torch),
}
