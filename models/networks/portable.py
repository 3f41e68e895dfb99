"""Files of a model that say themselves what they hold: nobody who is given one needs to be told anything else.

A ``.safetensors`` file has the architecture, the images, the classes and the options of ``wrap`` in its metadata. A
``.keras`` file holds the network anyway; what is done to an image of the box goes into it as a first layer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sparring.adapters.errors import InputError, first_line
from sparring.adapters.frameworks.preprocessing import Preprocessing, preprocessing
from sparring.models.architectures.twins import Shape
from sparring.models.networks import build as networks
from sparring.models.networks import weights
from sparring.models.networks.weights import Arrays
from sparring.models.storage import atomically, write_whole

METADATA = "sparring"
"""The key of the metadata under which the description stands, as JSON."""
BEFORE = "preprocessing"
"""The name of the layer in front of a Keras model."""


def save_torch(
    module: Any, path: Path, *, architecture: str, input_shape: Shape, classes: int, options: Mapping[str, Any]
) -> None:
    """Write a torch module of a named architecture as .safetensors, with its description in the metadata."""
    from safetensors.numpy import save

    description = {
        "architecture": architecture,
        "input_shape": input_shape,
        "classes": classes,
        "options": dict(options),
    }
    content = save(weights.torch_arrays(module), {METADATA: json.dumps(description)})
    write_whole(path, content)


def described(path: Path) -> dict[str, Any]:
    """What a .safetensors file says of its network; nothing where sparring hasn't written it. Raises ``InputError``."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            description = json.loads((file.metadata() or {}).get(METADATA, "{}"))
    except (SafetensorError, OSError, ValueError) as exc:
        raise InputError(f"weights: {path} can't be read: {first_line(exc)}") from exc
    return description if isinstance(description, dict) else {}


def save_keras(model: Any, path: Path, *, name: str, input_shape: Shape, options: Mapping[str, Any]) -> None:
    """Write a Keras model as .keras that takes images (N, H, W, C) in [0, 1] and gives logits, called ``name``.

    ``options`` are those with which ``wrap`` takes the model. Raises ``InputError`` if its softmax can't be taken off,
    and if Keras can't read again, in safe mode, what it wrote.
    """
    import keras

    from sparring.adapters.frameworks.keras_shared import image_layout, without_softmax

    if options.get("output") == "probabilities":
        model, remains = without_softmax(model)
        if remains:
            raise InputError("the model's softmax can't be taken off, and a .keras file is to give logits")
    chosen = {key: value for key, value in options.items() if key != "output"}
    before = preprocessing(input_shape, **{**chosen, "layout": chosen.get("layout") or image_layout()})
    channels, height, width = input_shape
    images = x = keras.Input((height, width, channels), name="images")
    if before.affine is not None or before.reverse:
        x = _layer(before, channels)(x)
    if not before.channels_last:
        x = keras.layers.Permute((3, 1, 2), name="channels_first")(x)
    # through its graph, so that its layers become the whole's own: called as a layer it would be one, and hide them
    scores = model.call(x) if isinstance(model, keras.Function | keras.Sequential) else model(x)
    whole = keras.Model(images, scores, name=name)

    def write(temporary: Path) -> None:
        whole.save(temporary)
        networks.keras_file(temporary, f"keras-{keras.backend.backend()}")

    atomically(path, write)


def unwrapped(arrays: Arrays) -> tuple[Arrays, dict[str, Any]]:
    """The arrays of a Keras model without those of the layer in front, and the options that it stands for."""
    arrays = dict(arrays)
    kernel, shift = (arrays.pop(f"{BEFORE}/{part}", None) for part in ("kernel", "bias"))
    if kernel is None or shift is None or kernel.ndim != 4:
        return arrays, {}
    matrix = kernel[0, 0].astype(np.float64)
    reverse = len(matrix) > 1 and not matrix.diagonal().all()
    scale = matrix[::-1].diagonal() if reverse else matrix.diagonal()
    options = {"mean": (-shift / scale).tolist(), "std": (1 / scale).tolist()}
    return arrays, {**options, "channel_order": "bgr" if reverse else "rgb"}


def _layer(before: Preprocessing, channels: int) -> Any:
    """The preprocessing as a layer that every Keras reads, on every backend: a convolution of one pixel."""
    import keras

    column = (channels, 1, 1)
    scale, shift = before.affine or (np.ones(column, np.float32), np.zeros(column, np.float32))
    kernel = np.diag(scale[:, 0, 0])
    layer = keras.layers.Conv2D(channels, 1, data_format="channels_last", trainable=False, name=BEFORE)
    layer.build((None, None, None, channels))
    layer.set_weights([(kernel[::-1] if before.reverse else kernel)[None, None], shift[:, 0, 0]])
    return layer
