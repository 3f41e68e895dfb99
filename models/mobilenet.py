"""MobileNet v2 with the ImageNet weights that are kept as plain arrays, batch normalisation folded in.

The arrays are ``<layer>/kernel`` and ``<layer>/bias``, where the layer is a convolution of
``keras.applications.MobileNetV2``; kernels are in Keras' order.
Architecture: Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", 2018.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sparring.adapters.errors import InputError

INPUT_RANGE = (-1.0, 1.0)


@dataclass(frozen=True)
class Convolution:
    """One convolution of the network, in order."""

    name: str
    size: int = 1
    stride: int = 1
    depthwise: bool = False
    relu: bool = True
    """ReLU6 follows"""
    opens_block: bool = False
    adds_shortcut: bool = False


def _convolutions() -> Iterator[Convolution]:
    yield Convolution("Conv1", size=3, stride=2)
    yield Convolution("expanded_conv_depthwise", size=3, depthwise=True)
    yield Convolution("expanded_conv_project", relu=False)
    block = 0
    for blocks, first_stride in ((2, 2), (3, 2), (4, 2), (3, 1), (3, 2), (1, 1)):
        for i in range(blocks):
            block += 1
            yield Convolution(f"block_{block}_expand", opens_block=True)
            yield Convolution(f"block_{block}_depthwise", size=3, stride=first_stride if i == 0 else 1, depthwise=True)
            yield Convolution(f"block_{block}_project", relu=False, adds_shortcut=i > 0)
    yield Convolution("Conv_1")


CONVOLUTIONS = tuple(_convolutions())
LAYERS = (*(conv.name for conv in CONVOLUTIONS), "predictions")
KEYS = frozenset(f"{layer}/{part}" for layer in LAYERS for part in ("kernel", "bias"))


def check(arrays: Mapping[str, npt.NDArray[Any]], what: str) -> None:
    """Raise ``InputError`` unless the arrays are those of a folded MobileNet v2."""
    if missing := sorted(KEYS - set(arrays)):
        more = f" and {len(missing) - 1} more arrays" if len(missing) > 1 else ""
        raise InputError(f"weights: {what} is no folded MobileNet v2: it lacks {missing[0]!r}{more}")


def is_folded(arrays: Mapping[str, Any]) -> bool:
    """Whether these are the folded weights, not those of a keras.applications.MobileNetV2 that was trained here."""
    return "Conv1/bias" in arrays and "bn_Conv1/gamma" not in arrays


def fold_into_keras(model: Any, arrays: Mapping[str, npt.NDArray[np.float32]]) -> None:
    """Put the arrays into a ``keras.applications.MobileNetV2``.

    Its convolutions have no bias, so the bias goes into the batch normalisation that follows, which otherwise does
    nothing as long as it is in inference mode. The arrays have passed ``check``.
    """
    layers = model.layers
    for layer, following in zip(layers, [*layers[1:], None], strict=True):
        if f"{layer.name}/kernel" not in arrays:
            continue
        kernel, bias = arrays[f"{layer.name}/kernel"], arrays[f"{layer.name}/bias"]
        if layer.name == "predictions":
            layer.set_weights([kernel, bias])
            continue
        layer.set_weights([kernel])
        unit = np.sqrt(np.ones_like(bias) + following.epsilon)
        following.set_weights([unit, bias, np.zeros_like(bias), np.ones_like(bias)])
