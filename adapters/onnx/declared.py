"""What an ONNX file declares of its images and classes, read without loading its weights or ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sparring.adapters.errors import InputError

Dimensions = list[int | None]
"""the size of each axis; None where the file leaves it open"""


def declared_dimensions(path: Path) -> tuple[list[Dimensions], Dimensions]:
    """The dimensions of every input that is no weight, and of the first output (empty without one).

    Raises ``InputError`` for a file that is no ONNX model.
    """
    import onnx

    try:
        graph = onnx.load(str(path), load_external_data=False).graph
    except Exception as exc:  # protobuf's errors, and the system's
        raise InputError(f"{path} can't be read as an ONNX model: {exc}") from exc
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [_dimensions(value) for value in graph.input if value.name not in weights]
    return inputs, _dimensions(graph.output[0]) if graph.output else []


def _dimensions(value: Any) -> Dimensions:
    return [axis.dim_value if axis.HasField("dim_value") else None for axis in value.type.tensor_type.shape.dim]
