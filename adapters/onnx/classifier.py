"""An ONNX file as a classifier: scores from ONNX Runtime, gradients from its graph evaluated in torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sparring.adapters.errors import InputError, NotSupported
from sparring.adapters.frameworks.preprocessing import (
    LEAST_PROBABILITY,
    ChannelOrder,
    Layout,
    Output,
    check_output,
    preprocessing,
)
from sparring.adapters.onnx.session import door, images_of, open_session, reason_of
from sparring.adapters.protocol import Images, Logits, check_cotangent, check_images

if TYPE_CHECKING:
    from sparring.adapters.onnx.gradients import Gradients
    from sparring.adapters.onnx.graph import Graph


class OnnxOutputs:
    """An ONNX model as a ``Classifier``: its scores, by ONNX Runtime.

    The file has one input, the images: (batch, channels, height, width) or channels last, gray ones also without the
    axis of channels, or rows of all pixels. Of several outputs the one of floats (batch, classes) counts.

    - ``input_shape`` (channels, height, width) and ``classes`` are the file's own when they are None. A file that takes
      rows needs ``input_shape``.
    - ``layout`` is channels-first when it is None, unless only the last axis can be channels.
    - ``input_range``: a file for uint8 or int8 has its type's own (0 to 255, -128 to 127) unless another than (0, 1) is
      given. Its images are rounded. Images for float16 and float64 are cast.
    - ``output='probabilities'``: a softmax that ends the graph is left out. Of any other graph the logarithm is taken,
      clipped at 1e-30.
    - ``device``: ``auto``, ``cpu`` or ``cuda``; ``providers`` are those that the session really has.

    The rest is as for ``TorchClassifier``. A file of a fixed batch size runs in batches of that size. ``lacks`` is
    empty where the file has gradients (``OnnxClassifier``); else ``lacks['gradients']`` says why it has none.

    Raises ``InputError`` for a file that is absent, not ONNX or truncated; for weights in another file that is absent
    or outside the model's folder; for an operator that ONNX Runtime lacks; for other inputs and outputs than these; for
    a device that is absent; and where ONNX Runtime is not installed.
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
        from sparring.adapters.onnx.graph import read_graph

        check_output(output)
        self.path = os.fspath(path)
        graph = read_graph(self.path)
        self._session = open_session(self.path, graph, device)
        self.providers: list[str] = self._session.get_providers()
        self._door = door(self._session, self.path, output)
        self._probabilities = output == "probabilities"
        layout = layout or self._door.layout
        self.input_shape = images_of(self._door, self.path, input_shape, layout)
        if self._door.whole and tuple(input_range) == (0.0, 1.0):
            kind = np.iinfo(self._door.dtype)
            input_range = (kind.min, kind.max)
        self._before = preprocessing(
            self.input_shape, input_range=input_range, mean=mean, std=std, channel_order=channel_order, layout=layout
        )
        self._batch = self._door.batch
        scores = self._probe()
        if classes not in (None, scores):
            raise InputError(f"classes is {classes}, but {self.path} gives {scores} scores per image")
        self.classes: int = scores
        if self._probabilities:
            graph = self._leave_softmax_out(graph, device)
        self._gradients, reason = self._find_gradients(graph)
        self.lacks = {"gradients": reason} if reason else {}

    def logits(self, x: Images) -> Logits:
        """Class scores (N, classes), float32, of images (N, C, H, W). Raises ``InputError`` as the protocol says."""
        check_images(x, self.input_shape)
        if not len(x):
            return np.zeros((0, self.classes), np.float32)
        size = self._batch or len(x)
        return np.concatenate([self._run(x[start : start + size]) for start in range(0, len(x), size)])

    def _run(self, x: Images) -> Logits:
        return self._as_logits(self._scores(self._own(x)))[: len(x)]

    def _own(self, x: Images) -> npt.NDArray[Any]:
        """The images in the file's own terms, filled up to its batch size."""
        images: npt.NDArray[Any] = self._before.apply(x)
        if len(self._door.sides) < 3:
            images = images.reshape(len(x), *(self.input_shape[1:] if len(self._door.sides) == 2 else (-1,)))
        if self._door.whole:
            kind = np.iinfo(self._door.dtype)
            images = np.rint(images).clip(kind.min, kind.max)
        return self._filled(images.astype(self._door.dtype, copy=False))

    def _filled(self, rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if self._batch is None or len(rows) == self._batch:
            return rows
        return np.concatenate([rows, np.zeros((self._batch - len(rows), *rows.shape[1:]), rows.dtype)])

    def _scores(self, images: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The file's scores for images in its own terms, (N, classes)."""
        scores = self._session.run([self._door.output], {self._door.input: images})[0]
        # some networks end in a pooling, whose sides of 1 remain
        if scores.ndim < 2 or len(scores) != len(images) or scores.size != scores.shape[0] * scores.shape[1]:
            raise InputError(f"{self.path} must give class scores, ({len(images)}, classes), not shape {scores.shape}")
        rows: npt.NDArray[Any] = scores.reshape(scores.shape[:2])
        return rows

    def _as_logits(self, scores: npt.NDArray[Any]) -> Logits:
        scores = scores.astype(np.float32, copy=False)
        return np.log(np.maximum(scores, np.float32(LEAST_PROBABILITY))) if self._probabilities else scores

    def _probe(self) -> int:
        """The number of classes. A file that claims any batch size and fails for two images gets single images."""
        try:
            classes = self._run(np.zeros((1, *self.input_shape), np.float32)).shape[1]
        except InputError:
            raise
        except Exception as exc:  # ONNX Runtime's errors have no base class of their own
            raise InputError(f"{self.path} does not take images of shape {self.input_shape}: {reason_of(exc)}") from exc
        if self._batch is None:
            try:
                self._run(np.zeros((2, *self.input_shape), np.float32))
            except Exception:  # a size that its author's single example had is written into it
                self._batch = 1
        return int(classes)

    def _leave_softmax_out(self, graph: Graph, device: str) -> Graph:
        """Take the input of the softmax that ends the graph, from now on. Returns the graph that gives it."""
        from scipy.special import softmax

        from sparring.adapters.onnx.gradients import softmax_input, with_output
        from sparring.adapters.onnx.graph import read_graph

        value = softmax_input(graph, self._door.output)
        model = with_output(self.path, value) if value else None
        if value is None or model is None:
            return graph
        inside = any(value in node.output for node in model.graph.node if node.op_type == "LinearClassifier")
        images = self._own(_noise(self.input_shape, self._batch))
        session, shorter = open_session(model.SerializeToString(), graph, device), replace(self._door, output=value)
        (scores,), expected = session.run([value], {self._door.input: images}), self._scores(images)
        if scores.shape != expected.shape or np.abs(softmax(scores, axis=1) - expected).max() >= 1e-3:
            return graph  # the softmax is over another axis
        self._session, self._door, self._probabilities = session, shorter, False
        if inside:
            graph, file = read_graph(model), graph.file
            graph.file = file
        return graph

    def _find_gradients(self, graph: Graph) -> tuple[Gradients | None, str]:
        from sparring.adapters.onnx.gradients import gradients_of

        images = self._own(_noise(self.input_shape, self._batch))
        device = "cuda" if "CUDAExecutionProvider" in self.providers else "cpu"
        expected = self._as_logits(self._scores(images))
        return gradients_of(graph, self._door, self._probabilities, device, images, expected)


class OnnxClassifier(OnnxOutputs):
    """An ONNX model as a ``Differentiable``: its gradients come from the graph in the file, evaluated in torch.

    Options as for ``OnnxOutputs``. Raises ``InputError`` as that does. Raises ``NotSupported`` for a file without
    gradients: torch can't evaluate an operator, an operator rises in steps (quantized models, trees), or the evaluation
    gives other scores than ONNX Runtime.
    """

    def __init__(self, path: str | os.PathLike[str], **options: Any) -> None:
        super().__init__(path, **options)
        if self.lacks:
            raise NotSupported(self.lacks["gradients"])

    @classmethod
    def of(cls, outputs: OnnxOutputs) -> OnnxClassifier:
        """An open file whose ``lacks`` is empty, as a classifier with gradients."""
        classifier = cls.__new__(cls)
        classifier.__dict__.update(outputs.__dict__)
        return classifier

    def vjp(self, x: Images, cotangent: Logits) -> Images:
        """Gradient (N, C, H, W), float32, of ``(logits(x) * cotangent).sum()``. Raises as the protocol says."""
        check_images(x, self.input_shape)
        check_cotangent(cotangent, len(x), self.classes)
        if not len(x):
            return np.zeros_like(x)
        size = self._batch or len(x)
        parts = [slice(start, start + size) for start in range(0, len(x), size)]
        return np.concatenate([self._vjp(x[part], cotangent[part]) for part in parts])

    def _vjp(self, x: Images, cotangent: Logits) -> Images:
        assert self._gradients is not None  # __init__ and onnx_classifier have checked it
        gradient = self._gradients.vjp(self._own(x), self._filled(cotangent))[: len(x)]
        if bad := int((~np.isfinite(gradient)).reshape(len(x), -1).any(axis=1).sum()):
            raise NotSupported(f"{self.path} has a gradient that is NaN or infinite for {bad} of {len(x)} images")
        channels, height, width = self.input_shape
        laid = (height, width, channels) if self._before.channels_last else self.input_shape
        return self._before.transposed(gradient.reshape(len(x), *laid))


def onnx_classifier(path: str | os.PathLike[str], **options: Any) -> OnnxOutputs:
    """An ``OnnxClassifier`` where the file has gradients, else an ``OnnxOutputs`` that says why it has none."""
    opened = OnnxOutputs(path, **options)
    return opened if opened.lacks else OnnxClassifier.of(opened)


def _noise(input_shape: tuple[int, int, int], batch: int | None) -> Images:
    """Two random images, or one for a file that takes single images."""
    return np.random.default_rng(0).random((min(batch or 2, 2), *input_shape), np.float32)
