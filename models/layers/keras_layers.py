"""The layers of a Keras model on any backend: what each gives, before and after its activation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from sparring.adapters.frameworks.coexistence import guard
from sparring.models.layers.layer import Layer, from_framework

guard()

import keras  # noqa: E402


def record(model: Any, x: np.ndarray, *, first: int) -> list[Layer]:
    """The steps of one pass in inference mode; ``x`` is what the model takes, and ``first`` the first's position."""
    recorder = _Recorder(len(x), first)
    undo: list[Callable[[], None]] = []
    try:
        for layer in _steps(model):
            undo += recorder.listen(layer)
        images = keras.ops.convert_to_tensor(x)
        recorder.know(images, first - 1)
        if keras.backend.backend() == "torch":
            import torch

            with torch.no_grad():
                model(images, training=False)
        else:
            model(images, training=False)
    finally:
        for back in undo:
            back()
    return recorder.found


class _Recorder:
    """Hears every call of a layer; of one in another that is a step of its own nothing is heard."""

    def __init__(self, n: int, first: int) -> None:
        self.found: list[Layer] = []
        self._n, self._first = n, first
        self._position: dict[int, int] = {}  # of a tensor, by its id
        self._kept: list[Any] = []  # an id is a tensor's own as long as it lives
        self._depth = 0
        self._args: tuple[Any, ...] = ()  # of the step that runs

    def know(self, tensor: Any, position: int) -> None:
        self._position[id(tensor)] = position
        self._kept.append(tensor)

    def listen(self, layer: Any) -> list[Callable[[], None]]:
        """Put ears on a layer and on its activation; what takes them off again."""
        undo = [_replaced(layer, "call", self._heard(layer))]
        activation = getattr(layer, "activation", None)
        named = getattr(activation, "__name__", type(activation).__name__)
        if (
            callable(activation)
            and named != "linear"
            and not isinstance(layer, (keras.layers.RNN, keras.layers.Activation))
        ):
            undo.append(_replaced(layer, "activation", self._heard_activation(layer, activation, named)))
        return undo

    def _heard(self, layer: Any) -> Callable[..., Any]:
        call = layer.call

        def hearing(*args: Any, **kwargs: Any) -> Any:
            self._depth += 1
            if self._depth == 1:
                self._args = args
            try:
                output = call(*args, **kwargs)
            finally:
                self._depth -= 1
            if self._depth == 0:
                self._add(layer.name, type(layer).__name__, layer, output, args)
            return output

        return hearing

    def _heard_activation(self, layer: Any, activation: Callable[..., Any], name: str) -> Callable[..., Any]:
        def hearing(x: Any, *args: Any, **kwargs: Any) -> Any:
            output = activation(x, *args, **kwargs)
            if self._depth == 1:
                self._add(layer.name, type(layer).__name__, layer, x, self._args)
                self._add(f"{layer.name}.{name}", name, layer, output, (x,))
            return output

        return hearing

    def _add(self, name: str, kind: str, layer: Any, output: Any, args: Any) -> None:
        tensor = next(_tensors(output), None)
        if tensor is None or id(tensor) in self._position:
            return
        values = from_framework(keras.ops.convert_to_numpy(tensor), self._n)
        if values is None:
            return
        if values.ndim == 4 and _channels_last(layer):
            values = np.ascontiguousarray(np.moveaxis(values, -1, 1))
        known = [self._position[id(t)] for t in _tensors(args) if id(t) in self._position]
        taken = {one.name for one in self.found}
        names = (name if i == 0 else f"{name} ({i + 1})" for i in range(len(taken) + 1))
        position = self._first + len(self.found)
        taking = next(_tensors(args), None)
        facts = _facts(layer, taking) if kind == type(layer).__name__ else {}
        self.found.append(
            Layer(next(n for n in names if n not in taken), kind, values, tuple(known) or (position - 1,), facts)
        )
        self.know(tensor, position)


def _steps(model: Any) -> Iterator[Any]:
    """The layers and operations that are steps of their own, those of nested models too; not the models themselves."""
    for operation in getattr(model, "operations", None) or model.layers:
        if isinstance(operation, keras.layers.InputLayer):
            continue
        if isinstance(operation, keras.Model):
            yield from _steps(operation)
            continue
        yield operation
        # of a user's own layer the parts are looked at, too
        if isinstance(operation, keras.Layer) and not type(operation).__module__.startswith("keras."):
            yield from _steps_within(operation)


def _steps_within(layer: Any) -> Iterator[Any]:
    for part in layer._flatten_layers(include_self=False, recursive=False):
        yield from _steps(part) if isinstance(part, keras.Model) else [part]


def _replaced(layer: Any, name: str, value: Any) -> Callable[[], None]:
    """Set an attribute on a layer itself; the call that undoes it."""
    own = name in vars(layer)
    before = getattr(layer, name)
    object.__setattr__(layer, name, value)
    return (lambda: object.__setattr__(layer, name, before)) if own else (lambda: object.__delattr__(layer, name))


def _channels_last(layer: Any) -> bool:
    own = getattr(layer, "data_format", None) or keras.config.image_data_format()
    return bool(own == "channels_last")


def _tensors(value: Any) -> Iterator[Any]:
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
    elif keras.ops.is_tensor(value):
        yield value


# --- parameters -----------------------------------------------------------------------------------------------------


def _facts(layer: Any, taken: Any) -> dict[str, Any]:
    if isinstance(layer, (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)):
        kernel = _array(layer.kernel)
        if isinstance(layer, keras.layers.DepthwiseConv2D):
            height, width, into, multiplier = kernel.shape
            weight, groups = kernel.transpose(2, 3, 0, 1).reshape(into * multiplier, 1, height, width), into
        else:
            weight, groups = kernel.transpose(3, 2, 0, 1), layer.groups
        found = {
            "weight": weight,
            "bias": _bias(layer, len(weight)),
            "stride": tuple(layer.strides),
            "dilation": tuple(layer.dilation_rate),
            "groups": groups,
        }
        return {**found, **_padding(layer, taken, weight.shape[2:], found["stride"], found["dilation"])}
    if isinstance(layer, keras.layers.Dense):
        kernel = _array(layer.kernel)
        return {"weight": kernel.T, "bias": _bias(layer, kernel.shape[1])}
    if isinstance(layer, keras.layers.BatchNormalization):
        mean, variance = _array(layer.moving_mean), _array(layer.moving_variance)
        return {
            "scale": _array(layer.gamma) if layer.scale else np.ones_like(mean),
            "offset": _array(layer.beta) if layer.center else np.zeros_like(mean),
            "mean": mean,
            "variance": variance,
            "epsilon": layer.epsilon,
        }
    if isinstance(layer, keras.layers.LayerNormalization):
        return {"epsilon": layer.epsilon}
    if isinstance(layer, (keras.layers.MaxPooling2D, keras.layers.AveragePooling2D)):
        window, stride = tuple(layer.pool_size), tuple(layer.strides)
        kind = "max" if isinstance(layer, keras.layers.MaxPooling2D) else "average"
        found = {"pool": kind, "window": window, "stride": stride, **_padding(layer, taken, window, stride, (1, 1))}
        return found if kind == "max" else {**found, "counts_padding": False}
    if isinstance(layer, (keras.layers.LSTM, keras.layers.GRU, keras.layers.SimpleRNN)):
        gates = {"LSTM": 4, "GRU": 3}.get(type(layer).__name__, 1)
        kernel, recurrent = _array(layer.cell.kernel), _array(layer.cell.recurrent_kernel)
        order = (1, 0, 2) if gates == 3 else tuple(range(gates))  # Keras' GRU: update, reset, new
        found = {
            "kernel": kernel.T.reshape(gates, layer.units, -1)[list(order)],
            "recurrent": recurrent.T.reshape(gates, layer.units, -1)[list(order)],
            "activation": layer.activation.__name__,
        }
        return {**found, "reset_after": layer.reset_after} if gates == 3 else found
    return {}


def _padding(layer: Any, taken: Any, window: Any, stride: Any, dilation: Any) -> dict[str, Any]:
    """As pixels before each axis, then after: of `same` with a stride it depends on the images."""
    if layer.padding == "valid":
        return {"padding": (0, 0, 0, 0)}
    if layer.padding != "same" or taken is None:
        return {}
    shape = tuple(taken.shape)
    sides = shape[1:3] if _channels_last(layer) else shape[2:4]
    totals = [
        max((-(-side // s) - 1) * s + (k - 1) * d + 1 - side, 0)
        for side, k, s, d in zip(sides, window, stride, dilation, strict=True)
    ]
    return {"padding": (*(total // 2 for total in totals), *(total - total // 2 for total in totals))}


def _bias(layer: Any, outputs: int) -> np.ndarray:
    return _array(layer.bias) if layer.use_bias else np.zeros(outputs, np.float32)


def _array(variable: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(variable), np.float32)
