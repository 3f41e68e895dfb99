"""What a Keras 3 model needs on any backend: its backend and layout are checked, its softmax is taken off."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from sparring.adapters.errors import InputError, first_line, missing_package
from sparring.adapters.frameworks.coexistence import guard
from sparring.adapters.frameworks.preprocessing import Layout, check_input_shape
from sparring.adapters.protocol import Images, Logits

guard()

try:
    import keras
except ModuleNotFoundError as exc:  # Keras imports its backend's framework, and JAX is optional
    if exc.name not in ("jax", "jaxlib"):
        raise
    raise missing_package("jax", "pip install 'sparring[jax]'", "Keras on JAX") from exc


def require_backend(backend: str) -> None:
    """Raise ``InputError`` unless this process's Keras runs on the backend: Keras fixes it at its first import."""
    actual = keras.backend.backend()
    if actual != backend:
        raise InputError(
            f"this process's Keras runs on {actual} and the model needs Keras on {backend}: start another process with "
            f"KERAS_BACKEND={backend}, for the backend is fixed when Keras is first imported"
        )


def image_layout() -> Layout:
    """The layout that Keras is configured for."""
    return "channels-first" if keras.config.image_data_format() == "channels_first" else "channels-last"


def images_of(model: Any, input_shape: tuple[int, int, int] | None, layout: Layout) -> tuple[int, int, int]:
    """The images (channels, height, width) that the model takes: the given shape, or the model's own.

    Raises ``InputError`` for a model with several inputs or outputs, and for one that takes no images. So it does where
    neither the model nor the caller gives a shape, and where the two differ.
    """
    inputs, outputs = getattr(model, "inputs", None) or [], getattr(model, "outputs", None) or []
    if len(inputs) > 1 or len(outputs) > 1:
        raise InputError(f"the model must have one input and one output, not {len(inputs)} and {len(outputs)}")
    own: tuple[int | None, ...] | None = tuple(inputs[0].shape[1:]) if inputs else None
    if own is not None and len(own) != 3:
        raise InputError(f"the model must take images, (batch, height, width, channels), not {(None, *own)}")
    if own is not None and layout == "channels-last":
        own = (own[2], own[0], own[1])
    if input_shape is None:
        if own is None or None in own:
            raise InputError("the model does not say what images it takes: give input_shape=(channels, height, width)")
        return check_input_shape(own)
    shape = check_input_shape(input_shape)
    if own is not None and any(a is not None and a != b for a, b in zip(own, shape, strict=True)):
        raise InputError(f"input_shape is {shape}, but the model takes {own} (channels, height, width)")
    return shape


def probe(call: Callable[[Images], Logits], input_shape: tuple[int, int, int], classes: int | None) -> int:
    """The number of scores that ``call`` gives for one black image. Raises ``InputError`` where it fails or differs."""
    try:
        scores = call(np.zeros((1, *input_shape), np.float32))
    except Exception as exc:  # whatever a user's model raises while its framework traces it
        raise InputError(f"the model does not take images of shape {input_shape}: {first_line(exc)}") from exc
    if scores.ndim != 2 or len(scores) != 1:
        raise InputError(f"the model must give one row of class scores per image, (1, classes), not {scores.shape}")
    if classes not in (None, scores.shape[1]):
        raise InputError(f"classes is {classes}, but the model gives {scores.shape[1]} scores per image")
    return int(scores.shape[1])


def without_softmax(model: Any) -> tuple[Any, bool]:
    """A copy without its final softmax, and False. Where none can be made, the model itself, and True: take the log."""
    last: Any = model.outputs[0]._keras_history.operation if getattr(model, "outputs", None) else None
    ends_in_softmax = isinstance(last, keras.layers.Softmax) or _is_softmax(getattr(last, "activation", None))
    if not ends_in_softmax:
        return model, True

    def copy(layer: Any) -> Any:
        if layer is not last:
            return type(layer).from_config(layer.get_config())
        if isinstance(layer, keras.layers.Softmax):
            return keras.layers.Activation("linear", name=layer.name)
        return type(layer).from_config({**layer.get_config(), "activation": "linear"})

    linear = keras.models.clone_model(model, clone_function=copy)
    linear.set_weights(model.get_weights())
    return linear, False


def _is_softmax(activation: Any) -> bool:
    return activation is keras.activations.softmax
