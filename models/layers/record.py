"""What a classifier computes on the way: the outputs of its layers, in the order in which they are computed.

Each framework is looked into by its own file; here is what they have in common.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sparring.adapters.errors import first_line
from sparring.adapters.frameworks.preprocessing import preprocessing
from sparring.adapters.protocol import Classifier, Images
from sparring.adapters.wrappers.ensemble import Ensemble
from sparring.models.layers.layer import Layer

_PREPROCESSING = ("input_range", "mean", "std", "channel_order", "layout")


def record(
    network: Any, classifier: Classifier, x: Images, options: Mapping[str, Any], members: Sequence[str] = ()
) -> tuple[list[Layer], str]:
    """The layers of a model on images (N, C, H, W), from ``images`` to ``output``, the logits.

    ``network`` is what ``wrap`` took with ``options`` to make ``classifier``; of an ensemble it is None, and its layers
    are the members, by these names. Also why there are no layers in between, where the network can't be looked into;
    else an empty text.
    """
    found = [Layer("images", "images", x)]
    why = ""
    if isinstance(classifier, Ensemble):
        for name, member in zip(members, classifier.members, strict=True):
            found.append(Layer(name, "member", member.logits(x), (0,)))
        takes = tuple(range(1, len(found)))
    else:
        try:
            found += _within(network, classifier, x, options)
        except Exception as exc:  # a look into a network of any kind: the certificate doesn't depend on it
            why = f"{type(exc).__name__}: {first_line(exc)}"
        takes = (len(found) - 1,)
    found.append(Layer("output", "output", classifier.logits(x), takes))
    return found, why


def _within(network: Any, classifier: Classifier, x: Images, given: Mapping[str, Any]) -> list[Layer]:
    """The preprocessing, if there is any, and what the framework's own file finds."""
    options = {key: given[key] for key in _PREPROCESSING if given.get(key) is not None}
    framework = str(getattr(classifier, "framework", ""))
    look: Any
    if framework == "onnx":
        from sparring.models.layers import onnx_layers as look

        options = look.as_taken(network, options)
    elif framework == "torch":
        from sparring.models.layers import torch_layers as look
    else:
        from sparring.adapters.frameworks.keras_shared import image_layout
        from sparring.models.layers import keras_layers as look

        options.setdefault("layout", image_layout())
    before = preprocessing(classifier.input_shape, **options)
    taken = before.apply(x)
    found: list[Layer] = []
    if before.reverse or before.affine is not None:
        seen = np.moveaxis(taken, -1, 1) if before.channels_last else taken
        found.append(Layer("input", "preprocessing", np.ascontiguousarray(seen), (0,)))
    recorded: list[Layer] = look.record(network, taken, first=1 + len(found))
    return found + recorded
