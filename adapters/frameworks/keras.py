"""A Keras 3 model as a classifier, on the backend that this process's Keras has: TensorFlow, torch or JAX."""

from __future__ import annotations

from typing import Any

from sparring.adapters.errors import InputError
from sparring.adapters.frameworks.keras_tensorflow import KerasTensorflowClassifier
from sparring.adapters.protocol import Classifier

import keras  # isort: skip


def keras_classifier(model: Any, **options: Any) -> Classifier:
    """The classifier for a Keras model on this process's backend; options as in ``wrap``. Raises ``InputError``."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        return KerasTensorflowClassifier(model, **options)
    if backend == "torch":
        from sparring.adapters.frameworks.keras_torch import KerasTorchClassifier

        return KerasTorchClassifier(model, **options)
    if backend == "jax":
        from sparring.adapters.frameworks.keras_jax import KerasJaxClassifier

        return KerasJaxClassifier(model, **options)
    raise InputError(
        f"Keras runs on {backend} in this process, and sparring knows Keras on tensorflow, torch and jax: set "
        "KERAS_BACKEND to one of them before Keras is first imported"
    )
