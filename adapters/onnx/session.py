"""An ONNX file in ONNX Runtime: its session, its input for the images and its output for the scores."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sparring.adapters.errors import InputError, first_line, missing_package
from sparring.adapters.frameworks.preprocessing import Layout, Output, check_input_shape

if TYPE_CHECKING:
    from sparring.adapters.onnx.graph import Graph

FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}
WHOLE = {"tensor(uint8)": np.uint8, "tensor(int8)": np.int8}
"""Images of these types are rounded, which has no gradient."""


@dataclass(frozen=True)
class Door:
    """The input for the images and the output for the scores."""

    input: str
    output: str
    dtype: Any
    """the NumPy type of the images"""
    batch: int | None
    """the one batch size that the file takes; None where it takes any"""
    sides: tuple[int | None, ...]
    """the sides of one image: three, two for gray images without a channel axis, one for rows; None is any size"""

    @property
    def whole(self) -> bool:
        """Whether images are whole numbers."""
        return self.dtype in WHOLE.values()

    @property
    def layout(self) -> Layout:
        """Channels-first, unless only the last of three axes can be channels."""
        last = len(self.sides) == 3 and self.sides[2] in (1, 3) and self.sides[0] not in (1, 3)
        return "channels-last" if last else "channels-first"


def open_session(model: str | bytes, graph: Graph, device: str) -> Any:
    """An ``onnxruntime.InferenceSession`` of the graph's file, or of other bytes; it is deterministic.

    Raises ``InputError`` for what ONNX Runtime can't run, for a device that is absent, and where it is not installed.
    """
    try:
        import onnxruntime
    except ImportError as exc:
        raise missing_package("onnxruntime", "pip install 'sparring[cpu]'", "an ONNX model") from exc
    if device not in ("auto", "cpu", "cuda"):
        raise InputError(f"unknown device {device!r}; valid: auto, cpu, cuda")
    providers = ["CPUExecutionProvider"]
    if device != "cpu" and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        providers.insert(0, "CUDAExecutionProvider")
    options = onnxruntime.SessionOptions()
    options.use_deterministic_compute = True
    options.log_severity_level = 4  # what fails is raised
    try:
        session = onnxruntime.InferenceSession(model, options, providers=providers)
    except Exception as exc:  # ONNX Runtime's errors have no base class of their own
        reason = reason_of(exc)
        for node in graph.missing:
            if node.operator in reason:
                raise InputError(
                    f"{graph.file} has {node}, which ONNX Runtime doesn't have: "
                    "the file can't be run here, not even as a black box"
                ) from exc
        raise InputError(f"{graph.file} is not an ONNX model that can be run here: {reason}") from exc
    if device == "cuda" and "CUDAExecutionProvider" not in session.get_providers():
        have = ", ".join(session.get_providers())
        raise InputError(f"device 'cuda' is not there: ONNX Runtime has {have} (pip install 'sparring[gpu]')")
    return session


def door(session: Any, path: str, output: Output) -> Door:
    """The input that takes the images and the output that gives the scores. ``InputError`` lists what there is.

    The output is the one of floats (batch, classes). Of several such it is the one with the name of the caller's
    ``output``, ``logits`` or ``probabilities``.
    """
    inputs = session.get_inputs()
    if len(inputs) != 1:
        raise InputError(f"{path} must have one input, the images, but has {len(inputs)}: {_listed(inputs)}")
    (only,) = inputs
    types = {**FLOATS, **WHOLE}
    if only.type not in types:
        raise InputError(f"{path} must take images of {' or '.join(types)}, not {only.type}")
    sides = tuple(side if isinstance(side, int) and side > 0 else None for side in only.shape)
    if not 2 <= len(sides) <= 4:
        raise InputError(f"{path} must take images, an input of 4 axes (3 or 2 of flat ones), not {only.shape}")
    return Door(only.name, _scores(session, path, output), types[only.type], sides[0], sides[1:])


def images_of(door: Door, path: str, input_shape: tuple[int, int, int] | None, layout: Layout) -> tuple[int, int, int]:
    """The shape (channels, height, width) of the images: the given one, or the file's own.

    Raises ``InputError`` where neither says it, and where the two differ.
    """
    own = door.sides
    if len(own) == 1:
        if input_shape is None:
            raise InputError(
                f"{path} takes rows of {own[0] or 'any number of'} values: give input_shape=(channels, height, width), "
                "the shape of the images in these rows"
            )
        shape = check_input_shape(input_shape)
        if own[0] not in (None, math.prod(shape)):
            raise InputError(f"input_shape {shape} is {math.prod(shape)} values, but {path} takes rows of {own[0]}")
        return shape
    if len(own) == 2:
        own = (1, *own) if layout == "channels-first" else (*own, 1)
    sides = own if layout == "channels-first" else (own[2], own[0], own[1])
    if input_shape is None:
        if None in sides:
            raise InputError(f"{path} takes images of any size: give input_shape=(channels, height, width)")
        return check_input_shape(sides)
    shape = check_input_shape(input_shape)
    if any(a is not None and a != b for a, b in zip(sides, shape, strict=True)):
        raise InputError(f"input_shape is {shape}, but {path} takes {sides} (channels, height, width)")
    return shape


def reason_of(exc: BaseException) -> str:
    """The first line of ONNX Runtime's message without its head, `[ONNXRuntimeError] : 7 : INVALID_PROTOBUF :`."""
    return first_line(exc).split(" : ", 3)[-1]


def _scores(session: Any, path: str, output: Output) -> str:
    outputs = session.get_outputs()
    # ONNX Runtime leaves the shape empty where it doesn't know it
    fit = [one for one in outputs if one.type in FLOATS and (not one.shape or len(one.shape) != 1)]
    rows = [one for one in fit if len(one.shape) == 2] or fit
    namesakes = [one for one in rows if one.name == output] if len(rows) > 1 else rows
    if len(namesakes) == 1:
        return str(namesakes[0].name)
    if any(one.type.startswith("seq(map(") for one in outputs):
        raise InputError(
            f"{path} gives its scores as a dictionary for each image ({_listed(outputs)}): export it without, "
            "skl2onnx.to_onnx(model, x, options={'zipmap': False})"
        )
    if not fit:
        raise InputError(f"{path} must give class scores, floats (batch, classes), but gives {_listed(outputs)}")
    images, keep = session.get_inputs()[0].name, rows[0].name
    raise InputError(
        f"{path} has {len(outputs)} outputs, of which any of {len(rows)} can be the scores: {_listed(outputs)}. Keep "
        f"one: onnx.utils.extract_model({path!r}, 'one.onnx', [{images!r}], [{keep!r}])"
    )


def _listed(values: Any) -> str:
    return ", ".join(f"{one.name} ({one.type} {one.shape})" for one in values)
