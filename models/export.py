"""A classifier of torch or Keras as an ONNX file that takes the images of the box: preprocessing is inside."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sparring.adapters.coexistence import guard
from sparring.adapters.errors import InputError
from sparring.adapters.preprocessing import LEAST_PROBABILITY, preprocessing
from sparring.adapters.protocol import Classifier, Images
from sparring.models.weights import atomically

EXPORT_VERSION = 1
"""Part of the identity of an exported file: raised when the same model is exported to other numbers."""
TOLERANCE = 1e-4
"""Largest difference of a logit, relative to the largest logit where that is above 1."""


def export(classifier: Classifier, model: Any, path: Path, options: dict[str, Any]) -> None:
    """Write the ONNX file: input float32 (N, C, H, W) in [0, 1] for any N, output the logits.

    ``classifier`` is the adapter of ``model`` with ``options``. Raises ``InputError`` if the model can't be exported.
    """
    write = _export_keras if getattr(classifier, "framework", "torch") == "keras-tensorflow" else _export_torch
    try:
        with _quiet():
            atomically(path, lambda temporary: write(classifier, model, temporary, options))
    except Exception as exc:  # the exporters raise whatever they like
        first = (str(exc).strip() or type(exc).__name__).splitlines()[0]
        raise InputError(f"export: the model can't be exported to ONNX: {first}") from exc


def check(source: Classifier, exported: Classifier, x: Images) -> None:
    """Raise ``InputError`` unless both give the same logits, to 1e-4, for the images."""
    expected = source.logits(x)
    difference = float(np.abs(expected - exported.logits(x)).max(initial=0))
    if not difference <= TOLERANCE * max(1.0, float(np.abs(expected).max(initial=0))):
        raise InputError(f"export: the logits of the ONNX file differ from the model's by {difference:.1e}")


def _export_torch(classifier: Any, _model: Any, path: Path, _options: dict[str, Any]) -> None:
    guard()
    import torch

    # one image would make the exporter take the batch size for a constant
    example = torch.zeros((2, *classifier.input_shape))
    torch.onnx.export(
        classifier.network,
        (example,),
        str(path),
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        input_names=["images"],
        output_names=["logits"],
        external_data=False,
        verbose=False,
    )


def _export_keras(classifier: Any, model: Any, path: Path, options: dict[str, Any]) -> None:
    guard()
    import keras

    from sparring.adapters.keras import image_layout, without_softmax

    chosen = {key: value for key, value in options.items() if key != "output"}
    before = preprocessing(classifier.input_shape, **{**chosen, "layout": chosen.get("layout") or image_layout()})
    model, log = without_softmax(model) if options.get("output") == "probabilities" else (model, False)
    images = x = keras.Input(classifier.input_shape, name="images")
    if before.reverse:
        x = keras.ops.flip(x, 1)
    if before.affine is not None:
        x = x * before.affine[0] + before.affine[1]
    if before.channels_last:
        x = keras.layers.Permute((2, 3, 1))(x)
    scores = model(x, training=False)
    if log:
        scores = keras.ops.log(keras.ops.maximum(scores, LEAST_PROBABILITY))
    whole = keras.Model(images, scores)
    whole(np.zeros((1, *classifier.input_shape), np.float32))  # Keras exports only what was called once
    whole.export(str(path), format="onnx", verbose=False)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporters print and warn at length; what goes wrong they raise."""
    loggers = [logging.getLogger(name) for name in ("tf2onnx", "torch.onnx", "onnxscript")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
