"""Which named architectures compute the same function in torch and in Keras, and the layers that hold their weights.

A twin is a pair of builders of one name, whose layers have the same names too; Keras' have ``_`` for torch's ``.``.
No framework is imported here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sparring.adapters.errors import InputError
from sparring.models.architectures import mobilenet
from sparring.models.architectures.architecture import parse, written
from sparring.models.architectures.catalogue import SHIPPED

Shape = tuple[int, int, int]
Kind = Literal["conv", "depthwise", "dense", "norm", "lstm", "gru", "simple_rnn"]

RESNET_BLOCKS = {"resnet18": (False, (2, 2, 2, 2)), "resnet50": (True, (3, 4, 6, 3))}
"""Whether its blocks are bottlenecks, and how many a stage has."""
MOBILENET_BLOCKS = tuple(
    (expansion, out, stride if number == 0 else 1)
    for expansion, out, count, stride in (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )
    for number in range(count)
)
"""Expansion, channels that come out, and stride of each block of torchvision's MobileNet v2."""


@dataclass(frozen=True)
class Layer:
    """A layer with weights. ``torch`` is its name there."""

    torch: str
    kind: Kind
    flattened: Shape | None = None
    """(channels, height, width) of what a dense layer takes flattened: the frameworks flatten in another order"""

    @property
    def keras(self) -> str:
        """Its name in Keras, which on torch takes no dot."""
        return self.torch.replace(".", "_")


def twin(architecture: str, arrays: Mapping[str, Any]) -> str:
    """The name under which both frameworks have the function of this network, with its parameters.

    ``architecture`` is its name, or where it comes from; ``arrays`` are its weights, by whose names a network of the
    user's is recognized, and the two that are called MobileNet v2 are told apart; by their shapes its sizes are.
    Raises ``InputError`` for a network that has no twin.
    """
    there = {_layer_of(key) for key in arrays}
    base, parameters = parse(architecture)
    if not base.isidentifier() or base in (*MOVABLE, *_LAYERS):
        # first what it is called: of two whose weights have the same names, such as cnn and cnn_dropout2d
        for name in dict.fromkeys((*({base} & _LAYERS.keys()), *_LAYERS)):
            layers = weighted_layers(name, (3, 32, 32))
            if there in ({layer.keras for layer in layers}, {layer.keras for layer in layers if layer.kind != "norm"}):
                return written(name, **{**parameters, **_sizes(name, layers, arrays)})
    raise InputError(
        f"the weights of {architecture} can't be moved between torch and Keras, only those of {', '.join(MOVABLE)}; "
        "any model of torch or Keras can be exported to ONNX"
    )


def _sizes(name: str, layers: Iterable[Layer], arrays: Mapping[str, Any]) -> dict[str, Any]:
    """The sizes in the arrays' shapes, by parameter of the architecture, where they aren't the defaults."""
    kinds = {layer.keras: layer.kind for layer in layers}
    widths = {}
    for key, value in arrays.items():
        layer, part = _layer_of(key), key.replace("/", ".").rpartition(".")[2]
        if kinds.get(layer) in ("conv", "dense") and part == "bias":
            widths[layer] = len(value)
        elif part in ("weight_hh_l0", "recurrent_kernel"):
            widths[layer] = value.shape[1 if part == "weight_hh_l0" else 0]
    usual, found = SHIPPED[name].parameters("torch") if name in _SIZED else {}, {}
    for parameter, places in _SIZED.get(name, {}).items():
        sizes = tuple(widths.get(place) for place in places)
        size = sizes if isinstance(usual[parameter], tuple) else sizes[0]
        if None not in sizes and size != usual[parameter]:
            found[parameter] = size
    return found


def _layer_of(key: str) -> str:
    """The layer of an array, as Keras names it."""
    return key.partition("/")[0] if "/" in key else key.rpartition(".")[0].replace(".", "_")


def weighted_layers(architecture: str, input_shape: Shape) -> tuple[Layer, ...]:
    """The layers with weights, in order; ``architecture`` is what ``twin`` gave."""
    name, parameters = parse(architecture)
    return tuple(_LAYERS[name](input_shape, **parameters))


def _cnn(input_shape: Shape, filters: tuple[int, int] = (32, 64), **_: Any) -> Iterator[Layer]:
    height, width = input_shape[1:]
    yield Layer("conv1", "conv")
    yield Layer("conv2", "conv")
    yield Layer("dense1", "dense", (filters[1], (height - 4) // 2, (width - 4) // 2))
    yield Layer("logits", "dense")


def _cnn_unpooled(input_shape: Shape, filters: tuple[int, int] = (32, 64), **_: Any) -> Iterator[Layer]:
    height, width = input_shape[1:]
    yield Layer("conv1", "conv")
    yield Layer("conv2", "conv")
    yield Layer("dense", "dense", (filters[1], height - 4, width - 4))
    yield Layer("logits", "dense")


def _cnn_batchnorm(input_shape: Shape, filters: tuple[int, int] = (32, 64), **_: Any) -> Iterator[Layer]:
    height, width = input_shape[1:]
    for number in (1, 2):
        yield from (Layer(f"conv{number}", "conv"), Layer(f"bn{number}", "norm"))
    yield Layer("dense1", "dense", (filters[1], height // 4, width // 4))
    yield Layer("logits", "dense")


def _dnn(input_shape: Shape, **_: Any) -> Iterator[Layer]:
    yield Layer("dense1", "dense", input_shape)
    yield Layer("dense2", "dense")
    yield Layer("logits", "dense")


def _rows(cell: Literal["lstm", "gru", "simple_rnn"]) -> Callable[..., Iterator[Layer]]:
    def layers(_: Shape, **__: Any) -> Iterator[Layer]:
        yield Layer(cell, cell)
        yield Layer("dense1", "dense")
        yield Layer("logits", "dense")

    return layers


def _resnet(name: str) -> Callable[[Shape], Iterator[Layer]]:
    bottleneck, stages = RESNET_BLOCKS[name]

    def layers(_: Shape) -> Iterator[Layer]:
        yield from (Layer("conv1", "conv"), Layer("bn1", "norm"))
        for stage, count in enumerate(stages, start=1):
            for number in range(count):
                block = f"layer{stage}.{number}"
                for i in range(1, 4 if bottleneck else 3):
                    yield from (Layer(f"{block}.conv{i}", "conv"), Layer(f"{block}.bn{i}", "norm"))
                if number == 0 and (bottleneck or stage > 1):
                    yield from (Layer(f"{block}.downsample.0", "conv"), Layer(f"{block}.downsample.1", "norm"))
        yield Layer("fc", "dense")

    return layers


def _mobilenet_torchvision(_: Shape) -> Iterator[Layer]:
    yield from (Layer("features.0.0", "conv"), Layer("features.0.1", "norm"))
    for number, (expansion, _out, _stride) in enumerate(MOBILENET_BLOCKS, start=1):
        block, parts = f"features.{number}.conv", 0
        if expansion > 1:
            yield from (Layer(f"{block}.0.0", "conv"), Layer(f"{block}.0.1", "norm"))
            parts = 1
        yield from (Layer(f"{block}.{parts}.0", "depthwise"), Layer(f"{block}.{parts}.1", "norm"))
        yield from (Layer(f"{block}.{parts + 1}", "conv"), Layer(f"{block}.{parts + 2}", "norm"))
    last = f"features.{len(MOBILENET_BLOCKS) + 1}"
    yield from (Layer(f"{last}.0", "conv"), Layer(f"{last}.1", "norm"), Layer("classifier.1", "dense"))


def _mobilenet_keras(_: Shape) -> Iterator[Layer]:
    for conv in mobilenet.CONVOLUTIONS:
        yield Layer(conv.name, "depthwise" if conv.depthwise else "conv")
        yield Layer(conv.norm, "norm")
    yield Layer("predictions", "dense")


_LAYERS: dict[str, Callable[..., Iterator[Layer]]] = {
    "cnn": _cnn,
    "cnn_dropout2d": _cnn,
    "cnn_unpooled": _cnn_unpooled,
    "cnn_batchnorm": _cnn_batchnorm,
    "dnn": _dnn,
    "rnn": _rows("lstm"),
    "gru": _rows("gru"),
    "simple_rnn": _rows("simple_rnn"),
    "resnet18": _resnet("resnet18"),
    "resnet50": _resnet("resnet50"),
    "mobilenet_v2_torchvision": _mobilenet_torchvision,
    "mobilenet_v2_keras": _mobilenet_keras,
}
_CNN = {"filters": ("conv1", "conv2"), "units": ("dense1",)}
_SIZED: dict[str, dict[str, tuple[str, ...]]] = {
    "cnn": _CNN,
    "cnn_dropout2d": _CNN,
    "cnn_unpooled": {**_CNN, "units": ("dense",)},
    "cnn_batchnorm": _CNN,
    "dnn": {"units": ("dense1", "dense2")},
    "rnn": {"units": ("lstm",), "dense": ("dense1",)},
    "gru": {"units": ("gru",), "dense": ("dense1",)},
    "simple_rnn": {"units": ("simple_rnn",), "dense": ("dense1",)},
}
"""The layers whose widths a parameter gives."""
MOVABLE = (
    "cnn",
    "cnn_dropout2d",
    "cnn_unpooled",
    "cnn_batchnorm",
    "dnn",
    "rnn",
    "gru",
    "simple_rnn",
    "resnet18",
    "resnet50",
    "mobilenet_v2",
)
"""The names that a user gives."""
