"""The gradient of an ONNX file, from its graph evaluated in torch, or the reason why there is none."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from sparring.adapters.errors import NotSupported, first_line
from sparring.adapters.frameworks.coexistence import guard
from sparring.adapters.frameworks.preprocessing import LEAST_PROBABILITY
from sparring.adapters.frameworks.pytorch import exactly
from sparring.adapters.onnx.graph import Graph, evaluate
from sparring.adapters.onnx.session import Door
from sparring.adapters.onnx.steps import Step

guard()

import onnx  # noqa: E402
import torch  # noqa: E402
from torch import Tensor  # noqa: E402

TOLERANCE = 1e-4
"""Largest difference of a logit from ONNX Runtime's, relative to the largest logit where that is above 1."""
HALF_TOLERANCE = 2e-2
"""The same for a file in half precision, parts of which ONNX Runtime computes in single precision."""
HALVES = (torch.float16, torch.bfloat16)
STAIRS = ("QuantizeLinear", "DynamicQuantizeLinear", "TreeEnsemble", "TreeEnsembleClassifier", "TreeEnsembleRegressor")
"""Operators whose value rises in steps. What lies behind one has no gradient, or a meaningless one."""
STEPS = (
    *STAIRS,
    "Round",
    "Floor",
    "Ceil",
    "Sign",
    "ArgMax",
    "Greater",
    "GreaterOrEqual",
    "Less",
    "LessOrEqual",
    "Cast",
    "Binarizer",
    "Hardmax",
    "Equal",
    "Not",
)
"""Operators that can make a gradient zero everywhere."""


class Gradients:
    """The vjp of one graph: from the file's own input to its scores, or to their logarithm for ``probabilities``."""

    def __init__(self, graph: Graph, door: Door, probabilities: bool, half: bool, device: str) -> None:
        self.graph, self.door, self.probabilities, self.half = graph, door, probabilities, half
        self.device = torch.device(device)

    def scores(self, images: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """The scores, float32 (N, classes), as ``OnnxOutputs.logits`` takes them from ONNX Runtime."""
        with torch.no_grad(), exactly(self.device):
            return _array(self._scores(self._tensor(images)))

    def vjp(self, images: npt.NDArray[Any], cotangent: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Gradient of ``(scores * cotangent).sum()`` in the file's own input, float32 of its shape."""
        scale = _powers_of_two(cotangent) if self.half else np.ones((len(cotangent), 1), np.float32)
        with torch.enable_grad(), exactly(self.device):
            leaf = self._tensor(images).requires_grad_()
            scores = self._scores(leaf)
            if not scores.requires_grad:
                return np.zeros(images.shape, np.float32)
            upstream = self._tensor(cotangent / scale)
            gradient = _array(torch.autograd.grad(scores, leaf, upstream, materialize_grads=True)[0])
        return gradient * scale.reshape(-1, *[1] * (images.ndim - 1)) if self.half else gradient

    def _tensor(self, array: npt.NDArray[Any]) -> Tensor:
        return torch.from_numpy(array.copy()).to(self.device)

    def _scores(self, images: Tensor) -> Tensor:
        value = evaluate(self.graph, {self.door.input: images}, [self.door.output])[self.door.output]
        scores = value.flatten(1).to(torch.float32)
        return scores.clamp(min=LEAST_PROBABILITY).log() if self.probabilities else scores


def gradients_of(
    graph: Graph,
    door: Door,
    probabilities: bool,
    device: str,
    images: npt.NDArray[Any],
    expected: npt.NDArray[np.float32],
) -> tuple[Gradients | None, str]:
    """The gradients of a file and an empty text, or None and the reason, which begins with `needs gradients`.

    ``images`` are a few in the file's own terms, ``expected`` the scores that ONNX Runtime gives for them. Where the
    graph evaluates to other scores, its gradient would be that of another function.
    """
    name = f"needs gradients, and {os.path.basename(graph.file)}"
    if door.whole:
        return None, f"{name} takes images of whole numbers, {np.dtype(door.dtype)}: rounding has none"
    steps = list(_reached(graph, door))
    for step in steps:
        if step.operator in STAIRS:
            return None, f"{name} has {_called(step)}, whose values are steps: it has none"
    for missing in graph.missing_for([door.output]):
        return None, f"{name} has {missing}, which can't be evaluated in torch"
    half = any(value.dtype in HALVES for value in graph.main.constants.values() if isinstance(value, Tensor))
    gradients = Gradients(graph, door, probabilities, half or door.dtype is np.float16, device)
    try:
        scores = gradients.scores(images)
        cotangent = np.random.default_rng(0).standard_normal(scores.shape).astype(np.float32)
        gradient = gradients.vjp(images, cotangent)
    except NotSupported as exc:
        return None, f"{name} can't be evaluated in torch: {exc}"
    except RuntimeError as exc:  # of autograd
        return None, f"{name} can't be differentiated in torch: {first_line(exc)}"
    limit = HALF_TOLERANCE if gradients.half else TOLERANCE
    off = float(np.abs(scores - expected).max()) / max(1.0, float(np.abs(expected).max()))
    if not off <= limit:
        return None, f"{name}, evaluated in torch, gives scores {off:.1e} off ONNX Runtime's ({limit:.0e} is allowed)"
    if not np.isfinite(gradient).all():
        return None, f"{name} has a gradient that is NaN or infinite"
    if not gradient.any():
        # without such an operator it may be zero for these images alone
        for step in steps:
            if step.operator in STEPS:
                return None, f"{name} has a gradient of zero everywhere, behind {_called(step)}"
    return gradients, ""


def softmax_input(graph: Graph, output: str) -> str | None:
    """The input of the softmax that ends the graph, or of the exponential of a log-probability; else None.

    A ``LinearClassifier`` has its softmax inside. Then it is its own output, which ``with_output`` turns into its
    input.
    """
    makers = {name: step for step in graph.main.steps for name in step.outputs}
    step, name = makers.get(output), output
    while step is not None and step.operator in ("Identity", "Cast", "Normalizer"):  # scikit-learn's sums to 1 already
        name = step.inputs[0]
        step = makers.get(name)
    if step is None:
        return None
    if step.operator == "LinearClassifier":
        return name
    return step.inputs[0] if (step.operator, step.domain) in (("Softmax", ""), ("Exp", "")) else None


def with_output(path: str, value: str) -> onnx.ModelProto | None:
    """The file with one more output; None where it has no such value, or is too large to be written again.

    A ``LinearClassifier`` with a softmax gives its scores without it.
    """
    model = onnx.load(path)
    node = next((node for node in model.graph.node if value in node.output), None)
    if node is None or model.ByteSize() >= 2**31:
        return None
    for attribute in node.attribute if node.op_type == "LinearClassifier" else ():
        if attribute.name == "post_transform" and attribute.s == b"SOFTMAX":
            attribute.s = b"NONE"
    if value not in [output.name for output in model.graph.output]:
        model.graph.output.append(onnx.ValueInfoProto(name=value))
    return model


def _reached(graph: Graph, door: Door) -> Iterator[Step]:
    """The steps to the scores that use the values of the images, not only their shape."""
    names = {door.input}
    for step, _ in graph.plan([door.output]):
        if names.intersection(step.needs) and step.operator not in ("Shape", "Size"):
            names.update(step.outputs)
            yield step


def _called(step: Step) -> str:
    return f"the operator {step.operator} (node {step.node!r})"


def _powers_of_two(cotangent: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """A power of two near each row's largest number, (N, 1): divided by it, the row survives half precision."""
    largest = np.abs(cotangent).max(axis=1, keepdims=True, initial=0)
    return np.exp2(np.floor(np.log2(np.where(largest > 0, largest, 1)))).astype(np.float32)


def _array(x: Tensor) -> npt.NDArray[np.float32]:
    return x.detach().to("cpu", torch.float32).contiguous().numpy()
