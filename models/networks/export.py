"""A classifier of torch or Keras as an ONNX file that takes the images of the box: preprocessing is inside."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import io
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sparring.adapters.errors import InputError, SparringError, first_line
from sparring.adapters.frameworks.coexistence import guard
from sparring.adapters.frameworks.preprocessing import LEAST_PROBABILITY, preprocessing
from sparring.adapters.process import Process
from sparring.adapters.protocol import Classifier, Images
from sparring.models.networks import build as networks
from sparring.models.storage import atomically

EXPORT_VERSION = 2
"""Part of the identity of an exported file: raised when the same model is exported to another file."""
TOLERANCE = 1e-4
"""Largest difference of a logit, relative to the largest logit where that is above 1."""

Options = dict[str, Any]
Exporter = Callable[[Any, Any, Path, Options], str]
"""classifier, model, path, options -> which program wrote the file"""


def export(classifier: Classifier, model: Any, path: Path, options: Options, architecture: str = "") -> dict[str, str]:
    """Write the ONNX file: input float32 (N, C, H, W) in [0, 1] for any N, output the logits.

    ``classifier`` is the adapter of ``model`` with ``options``. Returns what stands in the file's metadata: opset,
    exporter, version of sparring, digest of the weights, classes, what the input is, and the architecture where it is
    given. Raises ``InputError`` if the model can't be exported.
    """
    facts: dict[str, str] = {}
    described = {
        "sparring": importlib.metadata.version("sparring"),
        "digest": networks.digest_of(model),
        "input": "images in [0, 1], NCHW, normalization included",
        "output": "logits",
        "classes": str(classifier.classes),
        **({"architecture": architecture} if architecture else {}),
    }

    def write(temporary: Path) -> None:
        exporter = exporter_of(classifier)(classifier, model, temporary, options)
        facts.update(_signed(temporary, {"exporter": exporter, **described}))

    try:
        with quiet():
            atomically(path, write)
    except Exception as exc:  # the exporters raise whatever they like
        raise InputError(f"export: the model can't be exported to ONNX: {first_line(exc)}") from exc
    return facts


def check(source: Classifier, made: Classifier, x: Images, what: str = "export: the ONNX file") -> float:
    """The largest difference of a logit between the two, for the images at once and for the first alone.

    Raises ``InputError`` unless it is at most 1e-4; ``what`` names the second.
    """
    expected = source.logits(x)
    pairs = ((expected, made.logits(x)), (expected[:1], made.logits(x[:1])))
    difference = max(float(np.abs(ours - theirs).max(initial=0)) for ours, theirs in pairs)
    if not difference <= TOLERANCE * max(1.0, float(np.abs(expected).max(initial=0))):
        raise InputError(f"{what} gives other logits than the model: they differ by {difference:.1e}")
    return difference


def exporter_of(classifier: Classifier) -> Exporter:
    """What writes the classifier as an ONNX file."""
    framework = getattr(classifier, "framework", "torch")
    return {"keras-tensorflow": _export_keras, "keras-jax": _export_elsewhere}.get(framework, _export_torch)


def _signed(path: Path, facts: dict[str, str]) -> dict[str, str]:
    """Put the facts and the opset into the file. Raises ``ValueError`` if its batch has a fixed size."""
    import onnx

    proto = onnx.load(path)
    _check_any_batch(proto)
    opset = next(each.version for each in proto.opset_import if each.domain in ("", "ai.onnx"))
    signed = {"opset": str(opset), **facts}
    onnx.helper.set_model_props(proto, signed)
    for owner in (proto.graph, *proto.functions):
        for node in owner.node:
            del node.metadata_props[:]  # where in the source each comes from: paths of this machine
    onnx.save(proto, path)
    return signed


def _check_any_batch(proto: Any) -> None:
    sides = [value.type.tensor_type.shape.dim for value in (proto.graph.input[0], proto.graph.output[0])]
    for side in sides:
        if side and side[0].HasField("dim_value"):
            raise ValueError(f"the exporter has fixed the size of a batch at {side[0].dim_value}")


# --- exporters ------------------------------------------------------------------------------------------------------


def _export_torch(classifier: Any, _model: Any, path: Path, _options: Options) -> str:
    """torch's exporter, or its old one where that fails."""
    guard()
    import onnx
    import torch

    from sparring.adapters.frameworks.pytorch import evaluating

    # one image would make the exporter take the batch size for a constant
    example = torch.zeros((2, *classifier.input_shape))
    names = {"input_names": ["images"], "output_names": ["logits"], "verbose": False}
    with evaluating(classifier.network):
        try:
            torch.onnx.export(
                classifier.network,
                (example,),
                str(path),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                external_data=False,
                **names,  # type: ignore[arg-type]
            )
            _check_any_batch(onnx.load(path))
            return f"torch {torch.__version__} dynamo"
        except Exception as failed:
            axes = {"images": {0: "batch"}, "logits": {0: "batch"}}
            try:
                torch.onnx.export(
                    classifier.network,
                    (example,),
                    str(path),
                    dynamo=False,
                    dynamic_axes=axes,
                    **names,  # type: ignore[arg-type]
                )
                _check_any_batch(onnx.load(path))
            except Exception:
                raise failed from None
            return f"torch {torch.__version__} torchscript (dynamo failed: {first_line(failed)[:120]})"


def _export_keras(classifier: Any, model: Any, path: Path, options: Options) -> str:
    guard()
    import keras

    from sparring.adapters.frameworks.keras_shared import image_layout, without_softmax

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
    return f"tf2onnx {importlib.metadata.version('tf2onnx')} (Keras {keras.__version__})"


def _export_elsewhere(classifier: Any, model: Any, path: Path, options: Options) -> str:
    """A Keras model whose backend has no exporter: through a .keras file, by a process on another backend."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.keras"
        model.save(file)
        backend = "tensorflow" if importlib.util.find_spec("tensorflow") else "torch"
        request = {"file": str(file), "framework": f"keras-{backend}", "path": str(path), "options": options}
        environment = {**os.environ, "KERAS_BACKEND": backend, "CUDA_VISIBLE_DEVICES": "-1"}
        process = Process("sparring.models.networks.export_process", environment)
        try:
            answer, _ = process.ask({**request, "input_shape": classifier.input_shape})
        except SparringError as error:
            raise ValueError(f"by Keras on {backend}: {str(error).rpartition('Error: ')[2]}") from error
        finally:
            process.close()
    return str(answer["exporter"])


@contextlib.contextmanager
def quiet() -> Iterator[None]:
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
