"""An ONNX inference graph in torch, from the file alone: read once, evaluated often, differentiable by autograd."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sparring.adapters.errors import InputError, NotSupported, unknown
from sparring.adapters.frameworks.coexistence import guard
from sparring.adapters.onnx import read as onnx_read
from sparring.adapters.onnx.compile import Compiler
from sparring.adapters.onnx.operators import signature
from sparring.adapters.onnx.steps import Block, Missing, Schedule, Values, run, schedule

guard()

import onnx  # noqa: E402
import torch  # noqa: E402
from torch import Tensor  # noqa: E402

__all__ = ["Graph", "Missing", "Value", "evaluate", "read_graph"]


@dataclass(frozen=True)
class Value:
    """An input or output of the graph."""

    name: str
    dtype: torch.dtype | None
    """None for strings, and for what is no tensor"""
    shape: tuple[int | None, ...] | None
    """a side is None where the file leaves it open; the whole is None where the file gives no shape"""


class Graph:
    """The content of an ONNX file, ready to be evaluated. It never changes."""

    def __init__(self, model: onnx.ModelProto, file: str, folder: str | None) -> None:
        compiler = Compiler(model, file, folder)
        self.file, self.producer = file, model.producer_name
        self.opset = compiler.opsets.get("", 0)
        self.main: Block = compiler.main()
        self.inputs = tuple(_value(i) for i in model.graph.input if i.name in self.main.inputs)
        self.outputs = tuple(_value(o) for o in model.graph.output)
        self.missing = self.missing_for([output.name for output in self.outputs])
        """empty where every output can be evaluated; else all that the outputs need and that can't be evaluated"""
        self._plans: dict[tuple[str, ...], Schedule] = {}

    def missing_for(self, outputs: Iterable[str]) -> tuple[Missing, ...]:
        """What is missing for these outputs alone."""
        steps = [step for step, _ in schedule(self.main.steps, outputs)]
        return tuple(dict.fromkeys(m for step in steps for m in step.missing))

    def plan(self, outputs: Sequence[str]) -> Schedule:
        """The steps for these outputs. Raises ``InputError`` for a name that is not in the graph."""
        key = tuple(outputs)
        if key not in self._plans:
            values = {name for step in self.main.steps for name in step.outputs if name}
            for name in key:
                if name not in values and name not in self.main.constants and name not in self.main.inputs:
                    raise InputError(unknown(f"value of {self.file}", name, values))
            self._plans[key] = schedule(self.main.steps, key)
        return self._plans[key]


def read_graph(model: str | os.PathLike[str] | onnx.ModelProto) -> Graph:
    """The graph of a file or of a model in memory.

    Raises ``InputError`` for a file that is absent, not ONNX, truncated or otherwise damaged, and for external data
    that are missing or outside the file's folder.
    """
    return Graph(*onnx_read.load(model))


def evaluate(graph: Graph, inputs: Mapping[str, Tensor], outputs: Sequence[str] | None = None) -> dict[str, Tensor]:
    """The values of these names (by default the outputs), on the inputs' device, in the caller's grad mode.

    Float inputs may have any precision that the operators accept together with the file's constants. Sequences are
    lists of tensors. Raises ``InputError`` for inputs that are not the graph's, or of another kind or shape. Raises
    ``NotSupported``, with operator and node, for what can't be evaluated.
    """
    names = [output.name for output in graph.outputs] if outputs is None else list(outputs)
    _check(graph, inputs)
    devices = {x.device for x in inputs.values() if isinstance(x, Tensor) and x.device.type != "cpu"}
    device = next(iter(devices), None)
    values: Values = {**graph.main.constants_on(device), **inputs}
    run(graph.plan(names), values, device)
    for name in names:
        if not isinstance(values[name], Tensor | list | None):
            raise NotSupported(f"{graph.file}: the value {name!r} is no tensor, but has {values[name].reason}")
    return {name: values[name] for name in names}


def _check(graph: Graph, inputs: Mapping[str, Tensor]) -> None:
    expected = {value.name: value for value in graph.inputs}
    if set(expected) != set(inputs):
        raise InputError(f"{graph.file} takes the inputs {sorted(expected)}, not {sorted(inputs)}")
    for name, x in inputs.items():
        value = expected[name]
        if not isinstance(x, Tensor) or value.dtype is None:
            continue
        kind = x.dtype.is_floating_point and value.dtype.is_floating_point
        if not kind and x.dtype != value.dtype:
            raise InputError(f"{graph.file}: the input {name!r} is {value.dtype}, not {x.dtype}")
        shape = value.shape
        if shape is None:
            continue
        if len(shape) != x.ndim or any(a is not None and a != b for a, b in zip(shape, x.shape, strict=True)):
            raise InputError(f"{graph.file}: the input {name!r} has the shape {shape}, not {tuple(x.shape)}")


def _value(proto: onnx.ValueInfoProto) -> Value:
    if not proto.type.HasField("tensor_type"):
        return Value(proto.name, None, None)
    kind = proto.type.tensor_type
    try:
        dtype = signature.dtype_of(kind.elem_type)
    except NotSupported:
        dtype = None
    if not kind.HasField("shape"):
        return Value(proto.name, dtype, None)
    sides = [side.dim_value if side.HasField("dim_value") and side.dim_value > 0 else None for side in kind.shape.dim]
    return Value(proto.name, dtype, tuple(sides))
