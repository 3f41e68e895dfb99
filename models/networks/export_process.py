"""The process in which a Keras model is exported whose own backend has no exporter (``export.py`` asks)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparring.adapters.process import Answering, Arrays, serve
from sparring.adapters.wrap import wrap
from sparring.models.networks import build as networks
from sparring.models.networks.export import exporter_of, quiet


def _answer(request: Mapping[str, Any], _: Arrays, __: Answering) -> tuple[Mapping[str, Any], Arrays]:
    """Write the ONNX file; which program wrote it."""
    model = networks.keras_file(Path(request["file"]), request["framework"])
    shape, options = tuple(request["input_shape"]), request["options"]
    classifier = wrap(model, input_shape=shape, device="cpu", **options)
    with quiet():
        return {"exporter": exporter_of(classifier)(classifier, model, Path(request["path"]), options)}, ()


if __name__ == "__main__":
    serve(_answer)
