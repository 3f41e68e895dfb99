"""The process of a classifier that is used from another: it opens the model and answers (``remote.py`` asks)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sparring.adapters.process import Answering, Arrays, serve
from sparring.adapters.protocol import Differentiable, lacks
from sparring.models.prepared.model_ref import ModelRef
from sparring.models.prepared.open import open_model

_classifier: Any = None


def _answer(request: Mapping[str, Any], arrays: Arrays, _: Answering) -> tuple[Mapping[str, Any], Arrays]:
    """Open the model that the first request names; then what the classifier's methods give."""
    global _classifier
    if request["do"] == "open":
        _classifier = open_model(ModelRef.from_json(request["ref"]), device=request["device"])
        return _facts(_classifier), ()
    return {}, (getattr(_classifier, request["do"])(*arrays),)


def _facts(classifier: Any) -> dict[str, Any]:
    return {
        "input_shape": list(classifier.input_shape),
        "classes": int(classifier.classes),
        "framework": getattr(classifier, "framework", ""),
        "device": str(getattr(classifier, "device", "cpu")),
        "differentiable": isinstance(classifier, Differentiable),
        "lacks": lacks(classifier),
    }


if __name__ == "__main__":
    serve(_answer)
