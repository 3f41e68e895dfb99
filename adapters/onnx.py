"""An ONNX file as a classifier: an ONNX Runtime session, which has no gradients."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from sparring.adapters.errors import InputError, missing_package
from sparring.adapters.preprocessing import (
    LEAST_PROBABILITY,
    ChannelOrder,
    Layout,
    Output,
    check_input_shape,
    check_output,
    preprocessing,
)
from sparring.adapters.protocol import Images, Logits, check_images

_DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}


class OnnxClassifier:
    """An ONNX model with one input of images and one output (batch, classes), as a ``Classifier``.

    ``input_shape`` (channels, height, width) and ``classes`` are the file's own when they are None. ``layout`` is
    channels-first when it is None, unless only the last axis can be channels. ``device`` is ``auto``, ``cpu`` or
    ``cuda``; ``providers`` are those that the session really has. A file of a fixed batch size is run in batches of
    that size; float16 and float64 inputs are cast to. With ``output='probabilities'`` the logarithm is taken, clipped
    at 1e-30. The rest as for ``TorchClassifier``.

    Raises ``InputError`` for a file that is absent, not ONNX or truncated, for other inputs and outputs than these, for
    a device that is absent, and where ONNX Runtime is not installed.
    """

    framework = "onnx"

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        input_shape: tuple[int, int, int] | None = None,
        classes: int | None = None,
        input_range: tuple[float, float] = (0.0, 1.0),
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        channel_order: ChannelOrder = "rgb",
        layout: Layout | None = None,
        output: Output = "logits",
        device: str = "auto",
    ) -> None:
        check_output(output)
        self.path = os.fspath(path)
        self._session = _session(self.path, device)
        self.providers: list[str] = self._session.get_providers()
        self._probabilities = output == "probabilities"
        batch, own = self._open_input()
        layout = layout or _layout(own)
        self.input_shape = self._images(own, input_shape, layout)
        self._before = preprocessing(
            self.input_shape, input_range=input_range, mean=mean, std=std, channel_order=channel_order, layout=layout
        )
        self._batch = batch
        try:
            scores = self._run(np.zeros((1, *self.input_shape), np.float32))
        except InputError:
            raise
        except Exception as exc:  # ONNX Runtime's errors have no base class of their own
            raise InputError(f"{self.path} does not take images of shape {self.input_shape}: {_reason(exc)}") from exc
        if classes not in (None, scores.shape[1]):
            raise InputError(f"classes is {classes}, but {self.path} gives {scores.shape[1]} scores per image")
        self.classes: int = scores.shape[1]

    def logits(self, x: Images) -> Logits:
        """Class scores (N, classes), float32, of images (N, C, H, W). Raises ``InputError`` as the protocol says."""
        check_images(x, self.input_shape)
        if not len(x):
            return np.zeros((0, self.classes), np.float32)
        size = self._batch or len(x)
        return np.concatenate([self._run(x[start : start + size]) for start in range(0, len(x), size)])

    def _run(self, x: Images) -> Logits:
        n = len(x)
        images = self._before.apply(x).astype(self._dtype, copy=False)
        if self._batch is not None and n < self._batch:
            images = np.concatenate([images, np.zeros((self._batch - n, *images.shape[1:]), images.dtype)])
        scores = self._session.run([self._output], {self._input: images})[0]
        if not isinstance(scores, np.ndarray) or scores.ndim != 2 or len(scores) != len(images):
            got = f"shape {scores.shape}" if isinstance(scores, np.ndarray) else type(scores).__name__
            raise InputError(f"{self.path} must give class scores, ({len(images)}, classes), not {got}")
        scores = scores[:n].astype(np.float32, copy=False)
        return np.log(np.maximum(scores, np.float32(LEAST_PROBABILITY))) if self._probabilities else scores

    def _open_input(self) -> tuple[int | None, list[int | None]]:
        """The batch size and the three sides of an image, None where the file leaves them open."""
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1:
            names = f"inputs {[i.name for i in inputs]} and outputs {[o.name for o in outputs]}"
            raise InputError(f"{self.path} must have one input and one output, but has {names}")
        (only,) = inputs
        self._input, self._output = only.name, outputs[0].name
        if only.type not in _DTYPES:
            raise InputError(f"{self.path} must take float images, {' or '.join(_DTYPES)}, not {only.type}")
        self._dtype = _DTYPES[only.type]
        sides = [side if isinstance(side, int) and side > 0 else None for side in only.shape]
        if len(sides) != 4:
            raise InputError(f"{self.path} must take images, an input of 4 axes, not {only.shape}")
        return sides[0], sides[1:]

    def _images(
        self, own: list[int | None], input_shape: tuple[int, int, int] | None, layout: Layout
    ) -> tuple[int, int, int]:
        sides = own if layout == "channels-first" else [own[2], own[0], own[1]]
        if input_shape is None:
            if None in sides:
                raise InputError(f"{self.path} takes images of any size: give input_shape=(channels, height, width)")
            return check_input_shape(sides)
        given = check_input_shape(input_shape)
        if any(a is not None and a != b for a, b in zip(sides, given, strict=True)):
            raise InputError(f"input_shape is {given}, but {self.path} takes {tuple(sides)} (channels, height, width)")
        return given


def _session(path: str, device: str) -> Any:
    try:
        import onnxruntime
    except ImportError as exc:
        raise missing_package("onnxruntime", "pip install 'sparring[cpu]'", "an ONNX model") from exc
    if device not in ("auto", "cpu", "cuda"):
        raise InputError(f"unknown device {device!r}; valid: auto, cpu, cuda")
    if not os.path.isfile(path):
        raise InputError(f"there is no ONNX file {path}")
    wanted = ["CPUExecutionProvider"]
    if device != "cpu" and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        wanted.insert(0, "CUDAExecutionProvider")
    options = onnxruntime.SessionOptions()
    options.use_deterministic_compute = True
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(path, options, providers=wanted)
    except Exception as exc:  # ONNX Runtime's errors have no base class of their own
        raise InputError(f"{path} is not an ONNX model that can be run here: {_reason(exc)}") from exc
    if device == "cuda" and "CUDAExecutionProvider" not in session.get_providers():
        have = ", ".join(session.get_providers())
        raise InputError(f"device 'cuda' is not there: ONNX Runtime has {have} (pip install 'sparring[gpu]')")
    return session


def _layout(sides: list[int | None]) -> Layout:
    first, _, last = sides
    return "channels-last" if last in (1, 3) and first not in (1, 3) else "channels-first"


def _reason(exc: BaseException) -> str:
    """The first line of ONNX Runtime's message, which begins with `[ONNXRuntimeError] : 7 : INVALID_PROTOBUF :`."""
    first = (str(exc).strip() or type(exc).__name__).splitlines()[0]
    return first.split(" : ", 3)[-1]
