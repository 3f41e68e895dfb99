"""A classifier in a process of its own, for a member of an ensemble that another Keras backend than this one's serves.

Requests and answers are one line of JSON and the raw bytes of the arrays that it announces; nothing is pickled. The
other side is ``remote_process.py``, which ends when its standard input does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import weakref
from collections.abc import Mapping
from typing import IO, Any

import numpy as np

from sparring.adapters.errors import Disruption, InputError, SparringError
from sparring.adapters.process import crashed
from sparring.adapters.protocol import Images, Logits, check_cotangent, check_images


class RemoteOutputs:
    """A ``Classifier`` that another process computes.

    Raises ``SparringError`` when that process has crashed, and ``Disruption`` when it was ended from outside.
    """

    def __init__(self, process: subprocess.Popen[bytes], told: Mapping[str, Any]) -> None:
        self._process = process
        self.input_shape: tuple[int, int, int] = tuple(told["input_shape"])
        self.classes: int = told["classes"]
        self.framework: str = told["framework"]
        self.device: str = told["device"]
        self.lacks: dict[str, str] = told["lacks"]
        weakref.finalize(self, _end, process)

    def logits(self, x: Images) -> Logits:
        """Class scores (N, classes), float32, of images (N, C, H, W). Raises ``InputError`` as the protocol says."""
        check_images(x, self.input_shape)
        found: Logits = _ask(self._process, "logits", x)
        return found


class RemoteClassifier(RemoteOutputs):
    """A ``RemoteOutputs`` with gradients, as a ``Differentiable``."""

    def vjp(self, x: Images, cotangent: Logits) -> Images:
        """Gradient (N, C, H, W), float32, of ``(logits(x) * cotangent).sum()``. Raises as the protocol says."""
        check_images(x, self.input_shape)
        check_cotangent(cotangent, len(x), self.classes)
        found: Images = _ask(self._process, "vjp", x, cotangent)
        return found


def open_remotely(ref: Mapping[str, Any], *, keras_backend: str, device: str) -> RemoteOutputs:
    """The classifier of a model (a ``ModelRef`` as JSON) in a new process on that Keras backend.

    Raises ``InputError`` as ``open_model`` does.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "sparring.models.prepared.remote_process"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "KERAS_BACKEND": keras_backend},
    )  # fmt: skip
    try:
        told, _ = _exchange(process, {"ref": dict(ref), "device": device})
    except BaseException:
        _end(process)
        raise
    return (RemoteClassifier if told["differentiable"] else RemoteOutputs)(process, told)


def _ask(process: subprocess.Popen[bytes], what: str, *arrays: np.ndarray) -> Any:
    _, (found,) = _exchange(process, {"do": what}, *arrays)
    return found


def _exchange(
    process: subprocess.Popen[bytes], head: Mapping[str, Any], *arrays: np.ndarray
) -> tuple[dict[str, Any], list[np.ndarray]]:
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        send(process.stdin, head, *arrays)
        told, found = receive(process.stdout)
    except (OSError, EOFError):
        code = process.wait()
        text = f"the process of an ensemble's member ended with code {code}"
        raise (SparringError if crashed(code) else Disruption)(text) from None
    if "error" in told:
        raise (InputError if told["input"] else SparringError)(told["error"])
    return told, found


def send(stream: IO[bytes], head: Mapping[str, Any], *arrays: np.ndarray) -> None:
    """Write a head and arrays, of any dtype and shape, to the other side."""
    announced = {**head, "arrays": [[array.dtype.str, array.shape] for array in arrays]}
    stream.write(json.dumps(announced).encode() + b"\n")
    for array in arrays:
        stream.write(np.ascontiguousarray(array).tobytes())
    stream.flush()


def receive(stream: IO[bytes]) -> tuple[dict[str, Any], list[np.ndarray]]:
    """What ``send`` wrote on the other side. Raises ``EOFError`` where that side has ended."""
    line = stream.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    head = json.loads(line)
    arrays = []
    for kind, shape in head["arrays"]:
        dtype = np.dtype(kind)
        size = dtype.itemsize * int(np.prod(shape))
        content = stream.read(size)
        if len(content) < size:
            raise EOFError
        arrays.append(np.frombuffer(content, dtype).reshape(shape).copy())
    return head, arrays


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None and not stream.closed:
            try:
                stream.close()
            except BrokenPipeError:
                continue
