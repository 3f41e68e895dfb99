"""A ``ModelProto`` -> steps: local functions written out in place, constants folded, missing operators marked.

Every value has one name in the whole file; names in a local function begin with the name of the calling node. So the
body of an If, Loop or Scan can use the values around it by name.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import onnx
import torch
from onnx import AttributeProto, FunctionProto, GraphProto, NodeProto, TensorProto

from sparring.adapters.errors import InputError, NotSupported
from sparring.adapters.onnx import read as onnx_read
from sparring.adapters.onnx.operators.shapes import identity
from sparring.adapters.onnx.operators.signature import NoTensor, Signature, signature
from sparring.adapters.onnx.operators.table import find
from sparring.adapters.onnx.steps import Block, Step, Values, call

_DEEPEST = 64


@dataclass(frozen=True)
class _Place:
    """The place of a node: the file's graph, or a local function with names and attributes from its caller."""

    name: Callable[[str], str]
    opsets: Mapping[str, int]
    attributes: Mapping[str, AttributeProto]
    depth: int = 0


class Compiler:
    """Turns one file into steps."""

    def __init__(self, model: onnx.ModelProto, file: str, folder: str | None) -> None:
        self._graph, self._file, self._folder, self._producer = model.graph, file, folder, model.producer_name
        self._functions = {(domain_of(f), f.name, _overload(f)): f for f in model.functions}
        self.opsets = {domain_of(o): o.version for o in model.opset_import}

    def main(self) -> Block:
        """The file's graph. Raises ``InputError`` for a damaged file."""
        return self._block(self._graph, _Place(lambda name: name, self.opsets, {}), {}, set())

    def _block(self, graph: GraphProto, place: _Place, constants: Mapping[str, Any], names: set[str]) -> Block:
        """``constants`` are those around it, ``names`` those of all values."""
        own: Values = {place.name(proto.name): self._tensor(proto) for proto in graph.initializer}
        for sparse in graph.sparse_initializer:
            own[place.name(sparse.values.name)] = onnx_read.dense(sparse, self._file, self._folder)
        # an input with an initializer has that as its default
        inputs = tuple(name for value in graph.input if (name := place.name(value.name)) not in own)
        names = names.union(own, inputs)
        steps = self._steps(graph.node, place, ChainMap(own, constants), names)  # type: ignore[arg-type]
        outputs = tuple(place.name(value.name) for value in graph.output)
        for name in outputs:
            if name not in names:
                raise InputError(f"{self._file} is damaged: nothing gives the output {name!r}")
        return Block(inputs, outputs, steps, own)

    def _steps(
        self, nodes: Iterable[NodeProto], place: _Place, constants: ChainMap[str, Any], names: set[str]
    ) -> list[Step]:
        """The steps of the nodes. Adds their constants to ``constants``, and all their values to ``names``."""
        steps: list[Step] = []
        for node in nodes:
            for name in map(place.name, node.input):
                if name and name not in names:
                    raise InputError(f"{self._file} is damaged: nothing gives {name!r}, which {_label(node)!r} takes")
            function = self._functions.get((domain_of(node), node.op_type, _overload(node)))
            if function is not None:
                steps += self._written_out(node, function, place, constants, names)
            else:
                step = _folded(self._step(node, place, constants, names), constants)
                steps += [] if step is None else [step]
            names.update(place.name(name) for name in node.output if name)
        return steps

    def _written_out(
        self, node: NodeProto, function: FunctionProto, place: _Place, constants: ChainMap[str, Any], names: set[str]
    ) -> list[Step]:
        """The nodes of a local function, in the place of the node that calls it."""
        if place.depth >= _DEEPEST:
            raise InputError(f"{self._file} is damaged: the function {function.name!r} calls itself")
        label = f"{place.name(_label(node))}/"
        formal = dict.fromkeys(function.input, "")
        formal.update(zip(function.input, map(place.name, node.input), strict=False))
        copies: list[Step] = []
        for name, outer in zip(function.output, map(place.name, node.output), strict=False):
            if name in formal:  # an input, or another output, handed through
                copies.append(Step("Identity", "", label, identity, (formal[name],), (outer,)))
            elif outer:
                formal[name] = outer
        attributes = {a.name: a for a in function.attribute_proto}
        attributes.update({name: a for name, a in _attributes(node, place).items()})
        inner = _Place(
            lambda name: formal.get(name, label + name) if name else "",
            {**place.opsets, **{domain_of(o): o.version for o in function.opset_import}},
            attributes,
            place.depth + 1,
        )
        steps = self._steps(function.node, inner, constants, names)
        return steps + [step for step in copies if _folded(step, constants) is not None]

    def _step(self, node: NodeProto, place: _Place, constants: Mapping[str, Any], names: set[str]) -> Step:
        domain, inputs = domain_of(node), tuple(map(place.name, node.input))
        outputs = [place.name(name) for name in node.output]
        while outputs and not outputs[-1]:
            outputs.pop()
        bare = Step(node.op_type, domain, place.name(_label(node)), None, inputs, tuple(outputs))
        opset = place.opsets.get(domain, 1)
        function, reason = find(node.op_type, domain, opset)
        if function is None:
            return replace(bare, reason=reason)
        takes = signature(function)
        try:
            values, bodies = self._values(node, place, constants, names)
            reason = _refused(takes, {**values, **bodies}, [constants.get(name) for name in inputs if name])
        except NotSupported as exc:
            reason = f"with {exc}"
        if reason or (len(inputs) > takes.inputs and not takes.variadic):
            return replace(bare, reason=reason or f"with {len(inputs)} inputs")
        facts = {"opset": opset, "outputs": len(outputs), "producer": self._producer}
        values.update({name: facts[name] for name in takes.facts})
        host = {i: _numbers(constants.get(inputs[i])) for i in takes.host if i < len(inputs)}
        return replace(bare, function=partial(function, **values) if values else function, host=host, bodies=bodies)

    def _values(
        self, node: NodeProto, place: _Place, constants: Mapping[str, Any], names: set[str]
    ) -> tuple[dict[str, Any], dict[str, Block]]:
        """The plain attributes, and those that are graphs."""
        values, graphs = {}, {}
        for name, proto in _attributes(node, place).items():
            if proto.type == AttributeProto.GRAPH:
                graphs[name] = proto.g
            elif proto.type == AttributeProto.SPARSE_TENSOR:
                values[name] = onnx_read.dense(proto.sparse_tensor, self._file, self._folder)
            else:
                values[name] = onnx_read.attribute(proto, self._tensor)
        if node.op_type == "If" and isinstance(constants.get(place.name(node.input[0])), torch.Tensor):
            branch = graphs["then_branch" if bool(constants[place.name(node.input[0])]) else "else_branch"]
            graphs = dict.fromkeys(graphs, branch)
        return values, {name: self._block(graph, place, constants, names) for name, graph in graphs.items()}

    def _tensor(self, proto: TensorProto) -> Any:
        try:
            return onnx_read.tensor(proto, self._file, self._folder)
        except NotSupported as exc:
            return NoTensor(str(exc))


def domain_of(proto: Any) -> str:
    """ONNX's own domain has two names."""
    return "" if proto.domain == "ai.onnx" else str(proto.domain)


def _overload(proto: Any) -> str:
    return str(getattr(proto, "overload", ""))


def _label(node: NodeProto) -> str:
    return str(node.name or next((name for name in node.output if name), node.op_type))


def _attributes(node: NodeProto, place: _Place) -> dict[str, AttributeProto]:
    """The attributes by name. One that refers to an attribute of the surrounding function gets that one, or none."""
    attributes = {a.name: place.attributes.get(a.ref_attr_name) if a.ref_attr_name else a for a in node.attribute}
    return {name: a for name, a in attributes.items() if a is not None}


def _refused(takes: Signature, attributes: Mapping[str, Any], inputs: Iterable[Any]) -> str:
    """What of the node the function does not support, in words; empty where it supports all."""
    for name, value in attributes.items():
        if name not in takes.attributes:
            return f"with the attribute {name}"
        choices = takes.attributes[name]
        if choices and value not in choices:
            return f"with {name}={value!r}"
    strange = [x for x in (*inputs, *attributes.values()) if isinstance(x, NoTensor)]
    return f"with {strange[0].reason}" if strange else ""


def _numbers(value: Any) -> list[Any] | None:
    return value.flatten().tolist() if isinstance(value, torch.Tensor) else None


def _folded(step: Step, constants: ChainMap[str, Any]) -> Step | None:
    """The step; None where all its inputs are constant, for then its outputs become constants too."""
    if step.missing or not all(name in constants for name in step.needs):
        return step
    try:
        with torch.inference_mode(False), torch.no_grad():
            constants.update(zip(step.outputs, call(step, constants, None), strict=False))
    except NotSupported as exc:
        return replace(step, function=None, reason=str(exc.__cause__ or exc), bodies={})
    return None
