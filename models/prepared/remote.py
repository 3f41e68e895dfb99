"""A classifier in a process of its own, for a member of an ensemble that another Keras backend than this one's serves.

The other side is ``remote_process.py``.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Mapping
from typing import Any

from sparring.adapters.process import Process
from sparring.adapters.protocol import Images, Logits, check_cotangent, check_images


class RemoteOutputs:
    """A ``Classifier`` that another process computes.

    Raises ``ProcessDied`` when that process has crashed, and ``ProcessLost`` when it was ended from outside.
    """

    def __init__(self, process: Process, facts: Mapping[str, Any]) -> None:
        self._process = process
        self.input_shape: tuple[int, int, int] = tuple(facts["input_shape"])
        self.classes: int = facts["classes"]
        self.framework: str = facts["framework"]
        self.device: str = facts["device"]
        self.lacks: dict[str, str] = facts["lacks"]
        weakref.finalize(self, process.close)

    def logits(self, x: Images) -> Logits:
        """Class scores (N, classes), float32, of images (N, C, H, W). Raises ``InputError`` as the protocol says."""
        check_images(x, self.input_shape)
        _, (answer,) = self._process.ask({"do": "logits"}, x)
        return answer


class RemoteClassifier(RemoteOutputs):
    """A ``RemoteOutputs`` with gradients, as a ``Differentiable``."""

    def vjp(self, x: Images, cotangent: Logits) -> Images:
        """Gradient (N, C, H, W), float32, of ``(logits(x) * cotangent).sum()``. Raises as the protocol says."""
        check_images(x, self.input_shape)
        check_cotangent(cotangent, len(x), self.classes)
        _, (answer,) = self._process.ask({"do": "vjp"}, x, cotangent)
        return answer


def open_remotely(ref: Mapping[str, Any], *, keras_backend: str, device: str) -> RemoteOutputs:
    """The classifier of a model (a ``ModelRef`` as JSON) in a new process on that Keras backend.

    Raises ``InputError`` as ``open_model`` does.
    """
    process = Process(
        "sparring.models.prepared.remote_process",
        {**os.environ, "KERAS_BACKEND": keras_backend},
        name="the process of an ensemble's member",
    )
    try:
        facts, _ = process.ask({"do": "open", "ref": dict(ref), "device": device})
    except BaseException:
        process.close()
        raise
    return (RemoteClassifier if facts["differentiable"] else RemoteOutputs)(process, facts)
