"""From an ONNX file to a checked ``ModelProto``, and from its tensors to torch. Nothing is ever unpickled."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from sparring.adapters.errors import InputError
from sparring.adapters.frameworks.coexistence import guard
from sparring.adapters.onnx.operators.signature import dtype_of

guard()

import onnx  # noqa: E402
import torch  # noqa: E402
from onnx import AttributeProto, TensorProto  # noqa: E402
from torch import Tensor  # noqa: E402


def load(model: str | os.PathLike[str] | onnx.ModelProto) -> tuple[onnx.ModelProto, str, str | None]:
    """The model, its name in messages, and the folder of its external data (None where it has no file)."""
    if isinstance(model, onnx.ModelProto):
        name, folder, proto = "the ONNX model", None, model
    else:
        name = os.fspath(model)
        folder = os.path.dirname(os.path.abspath(name))
        if not os.path.isfile(name):
            raise InputError(f"there is no ONNX file {name}")
        try:
            proto = onnx.load(name, load_external_data=False)
        except Exception as exc:  # protobuf's errors differ between its implementations
            raise InputError(f"{name} is not an ONNX file, or is truncated: {exc}") from exc
    if not proto.HasField("graph") or not proto.opset_import:
        raise InputError(f"{name} is not an ONNX model: it has no graph or no opset")
    if not proto.graph.output:
        raise InputError(f"{name} is truncated, or no model: its graph has no outputs")
    return proto, name, folder


def tensor(proto: TensorProto, file: str, folder: str | None) -> Tensor:
    """The tensor, with memory of its own. ``InputError`` for missing data, ``NotSupported`` for its type."""
    dtype = dtype_of(proto.data_type)
    if proto.data_location == TensorProto.EXTERNAL:
        proto = _with_external_data(proto, file, folder)
    try:
        array: Any = np.array(onnx.numpy_helper.to_array(proto))  # a copy: the original may be read-only
    except Exception as exc:  # ValueError and TypeError, and what comes from ml_dtypes
        raise InputError(f"{file}: the tensor {proto.name!r} is damaged: {exc}") from exc
    if dtype == torch.bfloat16:
        return torch.from_numpy(array.view(np.int16)).view(dtype)
    return torch.from_numpy(array).to(dtype)


def _with_external_data(proto: TensorProto, file: str, folder: str | None) -> TensorProto:
    where = {entry.key: entry.value for entry in proto.external_data}
    location, what = where.get("location", ""), f"{file}: the data of the tensor {proto.name!r}"
    if folder is None:
        raise InputError(f"{what} are in the file {location!r}, and a model in memory has no folder: give its path")
    root = os.path.realpath(folder)
    path = os.path.realpath(os.path.join(root, location))
    if not location or os.path.isabs(location) or os.path.commonpath([root, path]) != root:
        raise InputError(f"{what} are in the file {location!r}, which is not in the model's folder")
    if not os.path.isfile(path):
        raise InputError(f"{what} are in the file {location!r}, which is not there")
    try:
        offset = int(where.get("offset", 0))
        length = int(where["length"]) if "length" in where else os.path.getsize(path) - offset
    except ValueError as exc:
        raise InputError(f"{what} have no valid offset and length: {exc}") from exc
    if offset < 0 or length < 0 or offset + length > os.path.getsize(path):
        raise InputError(f"{what} are cut off: {location!r} has {os.path.getsize(path)} bytes, not {offset + length}")
    with open(path, "rb") as data:
        data.seek(offset)
        loaded = TensorProto(name=proto.name, data_type=proto.data_type, dims=proto.dims, raw_data=data.read(length))
    return loaded


def dense(proto: onnx.SparseTensorProto, file: str, folder: str | None) -> Tensor:
    """A sparse tensor as a dense one."""
    values, indices = tensor(proto.values, file, folder), tensor(proto.indices, file, folder)
    full = torch.zeros(tuple(proto.dims), dtype=values.dtype)
    if indices.ndim == 1:
        full.view(-1)[indices] = values
    else:
        full[tuple(indices.T)] = values
    return full


def attribute(proto: AttributeProto, as_tensor: Callable[[TensorProto], Tensor]) -> Any:
    """The Python value of an attribute: numbers, strings, lists of them, tensors; graphs stay as they are."""
    kind = proto.type
    if kind == AttributeProto.TENSOR:
        return as_tensor(proto.t)
    if kind == AttributeProto.TENSORS:
        return [as_tensor(t) for t in proto.tensors]
    if kind == AttributeProto.STRING:
        return proto.s.decode("utf-8", "replace")
    if kind == AttributeProto.STRINGS:
        return [s.decode("utf-8", "replace") for s in proto.strings]
    value = onnx.helper.get_attribute_value(proto)
    return list(value) if kind in (AttributeProto.INTS, AttributeProto.FLOATS) else value
