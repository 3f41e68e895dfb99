"""MobileNet v2 with the ImageNet weights that are kept as plain arrays, batch normalization folded in.

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

NAMES = ("mobilenet_v2", "mobilenet_v2_keras")
"""The architectures into which these weights go."""
INPUT_RANGE = (-1.0, 1.0)
EPSILON = 1e-3
"""Of the batch normalizations of ``keras.applications``."""


@dataclass(frozen=True)
class Convolution:
    """One convolution of the network, in order."""

    name: str
    out: int
    """channels that come out"""
    size: int = 1
    stride: int = 1
    depthwise: bool = False
    relu: bool = True
    """ReLU6 follows"""
    opens_block: bool = False
    adds_shortcut: bool = False

    @property
    def norm(self) -> str:
        """The batch normalization that follows, where it isn't folded in."""
        return {"Conv1": "bn_Conv1", "Conv_1": "Conv_1_bn"}.get(self.name, f"{self.name}_BN")


def _convolutions() -> Iterator[Convolution]:
    yield Convolution("Conv1", 32, size=3, stride=2)
    yield Convolution("expanded_conv_depthwise", 32, size=3, depthwise=True)
    yield Convolution("expanded_conv_project", 16, relu=False)
    block, wide = 0, 6 * 16
    for out, blocks, first_stride in ((24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1)):
        for i in range(blocks):
            block += 1
            stride = first_stride if i == 0 else 1
            yield Convolution(f"block_{block}_expand", wide, opens_block=True)
            yield Convolution(f"block_{block}_depthwise", wide, size=3, stride=stride, depthwise=True)
            yield Convolution(f"block_{block}_project", out, relu=False, adds_shortcut=i > 0)
            wide = 6 * out
    yield Convolution("Conv_1", 1280)


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


def unfold(arrays: Mapping[str, npt.NDArray[np.float32]]) -> dict[str, npt.NDArray[np.float32]]:
    """The weights of a ``keras.applications.MobileNetV2`` that computes the same, by the paths of its variables.

    Its convolutions have no bias, so the bias goes into the batch normalization that follows, which otherwise does
    nothing as long as it is in inference mode. The arrays have passed ``check``.
    """
    unfolded = {}
    for conv in CONVOLUTIONS:
        bias = arrays[f"{conv.name}/bias"]
        unfolded[f"{conv.name}/kernel"] = arrays[f"{conv.name}/kernel"]
        unfolded[f"{conv.norm}/gamma"] = np.sqrt(np.ones_like(bias) + EPSILON)
        unfolded[f"{conv.norm}/beta"] = bias
        unfolded[f"{conv.norm}/moving_mean"] = np.zeros_like(bias)
        unfolded[f"{conv.norm}/moving_variance"] = np.ones_like(bias)
    return {**unfolded, **{key: arrays[key] for key in ("predictions/kernel", "predictions/bias")}}
