"""The process of a classifier that is used from another: it opens the model and answers (``remote.py`` asks)."""

from __future__ import annotations

import os
import signal
from typing import Any

from sparring.adapters.errors import InputError
from sparring.adapters.protocol import Differentiable, lacks
from sparring.models.prepared.model_ref import ModelRef
from sparring.models.prepared.open import open_model
from sparring.models.prepared.remote import receive, send


def _serve() -> None:
    """Open the model that the first request names, then answer until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever started it
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not mix with answers
    classifier: Any = None
    while True:
        try:
            request, arrays = receive(requests)
        except EOFError:
            return
        try:
            if "ref" in request:
                classifier = open_model(ModelRef.from_json(request["ref"]), device=request["device"])
                send(answers, _described(classifier))
            else:
                send(answers, {}, getattr(classifier, request["do"])(*arrays))
        except Exception as error:
            text = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
            send(answers, {"error": text, "input": isinstance(error, InputError)})


def _described(classifier: Any) -> dict[str, Any]:
    return {
        "input_shape": list(classifier.input_shape),
        "classes": int(classifier.classes),
        "framework": getattr(classifier, "framework", ""),
        "device": str(getattr(classifier, "device", "cpu")),
        "differentiable": isinstance(classifier, Differentiable),
        "lacks": lacks(classifier),
    }


if __name__ == "__main__":
    _serve()
