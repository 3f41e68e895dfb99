"""The steps of an ONNX graph: ONNX Runtime gives every value in it as one more output."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from sparring.models.layers.layer import Layer, from_framework

_MOST = 4_000_000
"""Weights above this size are not read."""


def as_taken(path: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The preprocessing's options as ``OnnxOutputs`` completes them from the file: layout, range of whole numbers."""
    taken = _input(onnx.load(path, load_external_data=False).graph)
    sides = [axis.dim_value if axis.HasField("dim_value") else None for axis in _dimensions(taken)[1:]]
    last = len(sides) == 3 and sides[2] in (1, 3) and sides[0] not in (1, 3)
    found = {"layout": "channels-last" if last else "channels-first", **options}
    dtype = _dtype(taken)
    if dtype.kind in "iu" and tuple(found.get("input_range", (0, 1))) == (0, 1):
        found["input_range"] = (np.iinfo(dtype).min, np.iinfo(dtype).max)
    return found


def record(path: str, x: np.ndarray, *, first: int) -> list[Layer]:
    """The steps of one run; ``x`` is what the file takes, and ``first`` the first's position."""
    import onnxruntime

    model = onnx.load(path)
    graph = model.graph
    taken = _input(graph)
    outputs = [name for node in graph.node for name in node.output if name and node.op_type != "Constant"]
    there = {value.name for value in graph.output}
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs if name not in there)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what fails is raised
    # with its optimisations ONNX Runtime would fuse the steps that are to be seen
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    axes, dtype = _dimensions(taken), _dtype(taken)
    if len(axes) < 4:  # rows of all pixels, or grey images without an axis of channels
        x = x.reshape(len(x), -1) if len(axes) == 2 else x.reshape(len(x), *x.shape[-2:])
    x = (np.rint(x) if dtype.kind in "iu" else x).astype(dtype)
    batch = axes[0].dim_value or len(x)
    try:
        values = _run(session, taken.name, x, outputs, batch)
    except Exception:  # a file that says that it takes any batch, and doesn't
        values = _run(session, taken.name, x, outputs, 1)
    return list(_layers(graph, taken.name, values, len(x), first))


def _layers(graph: Any, taken: str, values: Mapping[str, Any], n: int, first: int) -> Iterator[Layer]:
    constants = _constants(graph)
    position = {taken: first - 1}
    names: set[str] = set()
    count = 0
    for node in graph.node:
        known = tuple(dict.fromkeys(position[name] for name in node.input if name in position))
        made = from_framework(values.get(node.output[0]), n) if node.output and node.output[0] in values else None
        if made is None or not known:
            # what passes an image's numbers on in another form leads on to where they came from
            position.update({name: known[0] for name in node.output if known})
            continue
        told = node.name or node.output[0]
        name = next(c for c in (told, *(f"{told} ({i})" for i in range(2, len(names) + 3))) if c not in names)
        names.add(name)
        position.update({output: first + count for output in node.output})
        count += 1
        shape = np.shape(values[node.input[0]]) if node.input[0] in values else None
        yield Layer(name, node.op_type, made, known, _facts(node, constants, shape))


def _run(session: Any, name: str, x: np.ndarray, outputs: list[str], batch: int) -> dict[str, np.ndarray]:
    """Every output for all images; a file of a fixed batch is run batch by batch."""
    found: dict[str, list[np.ndarray]] = {output: [] for output in outputs}
    for start in range(0, len(x), batch):
        part = x[start : start + batch]
        filled = np.concatenate([part, np.repeat(part[-1:], batch - len(part), axis=0)])
        for output, value in zip(outputs, session.run(outputs, {name: filled}), strict=True):
            if not isinstance(value, np.ndarray):
                continue
            axes = [axis for axis in range(min(value.ndim, 3)) if value.shape[axis] == batch]
            if len(x) > batch and axes:
                value = np.moveaxis(value, axes[0], 0)[: len(part)]
            found[output].append(value)
    return {
        output: np.concatenate(parts) if len(parts) > 1 and parts[0].ndim else parts[0]
        for output, parts in found.items()
        if parts
    }


def _input(graph: Any) -> Any:
    weights = {tensor.name for tensor in graph.initializer}
    return next(value for value in graph.input if value.name not in weights)


def _dtype(value: Any) -> Any:
    return helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)


def _dimensions(value: Any) -> Any:
    return value.type.tensor_type.shape.dim


# --- parameters -----------------------------------------------------------------------------------------------------


def _constants(graph: Any) -> dict[str, TensorProto]:
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            constants[node.output[0]] = node.attribute[0].t
        elif node.op_type == "Identity" and node.input[0] in constants:
            constants[node.output[0]] = constants[node.input[0]]
    return constants


def _facts(node: Any, constants: Mapping[str, TensorProto], shape: tuple[int, ...] | None) -> dict[str, Any]:
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}

    def given(index: int) -> np.ndarray | None:
        name = node.input[index] if index < len(node.input) else ""
        if name not in constants or int(np.prod(constants[name].dims)) > _MOST:
            return None
        array = numpy_helper.to_array(constants[name])
        return array.astype(np.float32) if array.dtype.kind == "f" else None

    if node.op_type == "Conv":
        weight = given(1)
        if weight is None or weight.ndim != 4:
            return {}
        window = weight.shape[2:]
        stride, dilation = tuple(attributes.get("strides", (1, 1))), tuple(attributes.get("dilations", (1, 1)))
        bias = given(2) if len(node.input) > 2 else np.zeros(len(weight), np.float32)
        facts = {
            "weight": weight,
            "bias": bias,
            "stride": stride,
            "dilation": dilation,
            "groups": attributes.get("group", 1),
            "padding": _padding(attributes, shape, window, stride, dilation),
        }
    elif node.op_type in ("Gemm", "MatMul"):
        weight = given(1)
        if weight is None or weight.ndim != 2:
            return {}
        weight = weight if attributes.get("transB") else weight.T
        facts = {"weight": weight, "bias": given(2) if len(node.input) > 2 else None}
    elif node.op_type == "BatchNormalization":
        scale, offset, mean, variance = (given(index) for index in range(1, 5))
        facts = {
            "scale": scale,
            "offset": offset,
            "mean": mean,
            "variance": variance,
            "epsilon": attributes.get("epsilon", 1e-5),
            "training": bool(attributes.get("training_mode", 0)) or None,
        }
    elif node.op_type == "LayerNormalization":
        facts = {"epsilon": attributes.get("epsilon", 1e-5)}
    elif node.op_type in ("MaxPool", "AveragePool"):
        window = tuple(attributes["kernel_shape"])
        stride, dilation = tuple(attributes.get("strides", (1, 1))), tuple(attributes.get("dilations", (1, 1)))
        facts = {
            "pool": "max" if node.op_type == "MaxPool" else "average",
            "window": window,
            "stride": stride,
            "padding": _padding(attributes, shape, window, stride, dilation),
            "counts_padding": bool(attributes.get("count_include_pad", 0)) if node.op_type == "AveragePool" else None,
        }
    elif node.op_type in ("LSTM", "GRU", "RNN") and attributes.get("direction", b"forward") == b"forward":
        kernel, recurrent = given(1), given(2)
        if kernel is None or recurrent is None:
            return {}
        # the order of the specification: input, output, forget, cell; update, reset, new
        order = {"LSTM": [0, 2, 3, 1], "GRU": [1, 0, 2], "RNN": [0]}[node.op_type]
        hidden = recurrent.shape[2]
        activations = [name.decode().lower() for name in attributes.get("activations", ())] or ["tanh", "tanh"]
        facts = {
            "kernel": kernel[0].reshape(len(order), hidden, -1)[order],
            "recurrent": recurrent[0].reshape(len(order), hidden, -1)[order],
            "activation": activations[0 if node.op_type == "RNN" else 1],
            "reset_after": bool(attributes.get("linear_before_reset", 0)) if node.op_type == "GRU" else None,
        }
    else:
        return {}
    return {key: value for key, value in facts.items() if value is not None}


def _padding(
    attributes: Mapping[str, Any], shape: tuple[int, ...] | None, window: Any, stride: Any, dilation: Any
) -> tuple[int, ...] | None:
    """As pixels before each axis, then after."""
    automatic = attributes.get("auto_pad", b"NOTSET").decode()
    if automatic in ("NOTSET", "VALID"):
        return tuple(attributes.get("pads", (0, 0, 0, 0))) if automatic == "NOTSET" else (0, 0, 0, 0)
    if shape is None:
        return None
    totals = [
        max((-(-side // s) - 1) * s + (k - 1) * d + 1 - side, 0)
        for side, k, s, d in zip(shape[2:], window, stride, dilation, strict=True)
    ]
    less, more = tuple(total // 2 for total in totals), tuple(total - total // 2 for total in totals)
    return less + more if automatic == "SAME_UPPER" else more + less
