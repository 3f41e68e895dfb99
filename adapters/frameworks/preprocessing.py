"""What a model does to an image in [0, 1] before its first layer: the same numbers for every framework."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from sparring.adapters.errors import InputError
from sparring.adapters.protocol import Images

ChannelOrder = Literal["rgb", "bgr"]
Layout = Literal["channels-first", "channels-last"]
Output = Literal["logits", "probabilities"]

LEAST_PROBABILITY = 1e-30
"""Probabilities are clipped here before their logarithm is taken. Where one underflows, the gradient is 0, not NaN."""


@dataclass(frozen=True)
class Preprocessing:
    """Three steps, each of which may be absent: reverse the channels; ``x * scale + shift``; put the channels last."""

    reverse: bool
    affine: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]] | None
    """scale and shift, each (C, 1, 1) in the model's channel order; None where they change nothing"""
    channels_last: bool

    @property
    def identity(self) -> bool:
        return not self.reverse and self.affine is None and not self.channels_last

    def apply(self, x: Images) -> npt.NDArray[np.float32]:
        """The model's own input for images (N, C, H, W), contiguous. It is x itself where no step changes anything."""
        if self.reverse:
            x = x[:, ::-1]
        if self.affine is not None:
            scale, shift = self.affine
            x = x * scale + shift
        if self.channels_last:
            x = x.transpose(0, 2, 3, 1)
        return np.ascontiguousarray(x)

    def transposed(self, gradient: npt.NDArray[np.float32]) -> Images:
        """The gradient with respect to images (N, C, H, W), from that with respect to what ``apply`` makes of them."""
        if self.channels_last:
            gradient = gradient.transpose(0, 3, 1, 2)
        if self.affine is not None:
            gradient = gradient * self.affine[0]
        if self.reverse:
            gradient = gradient[:, ::-1]
        return np.ascontiguousarray(gradient)


def preprocessing(
    input_shape: tuple[int, int, int],
    *,
    input_range: tuple[float, float] = (0.0, 1.0),
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    channel_order: ChannelOrder = "rgb",
    layout: Layout = "channels-first",
) -> Preprocessing:
    """The preprocessing of images (C, H, W) in [0, 1], in the terms in which models are published.

    ``input_range`` is what the model takes for a pixel of 0 and of 1. ``mean`` is subtracted, then ``std`` divides: one
    number per channel or one for all, in units of the input range and in the *model's* channel order, so that the usual
    BGR means go with ``channel_order='bgr'``. Raises ``InputError`` for numbers that make no sense.
    """
    channels = input_shape[0]
    low, high = _numbers("input_range", input_range, 2)
    if not low < high:
        raise InputError(f"input_range must be (low, high) with low < high, not ({low:g}, {high:g})")
    means = _numbers("mean", (0.0,) if mean is None else mean, channels)
    stds = _numbers("std", (1.0,) if std is None else std, channels)
    if (stds <= 0).any():
        raise InputError(f"std must be positive, not {tuple(stds.tolist())}")
    if channel_order not in ("rgb", "bgr"):
        raise InputError(f"channel_order must be 'rgb' or 'bgr', not {channel_order!r}")
    if channel_order == "bgr" and channels != 3:
        raise InputError(f"channel_order 'bgr' needs three channels, and the images have {channels}")
    if layout not in ("channels-first", "channels-last"):
        raise InputError(f"layout must be 'channels-first' or 'channels-last', not {layout!r}")
    scale, shift = (high - low) / stds, (low - means) / stds
    same = bool((scale == 1).all() and (shift == 0).all())
    column = (channels, 1, 1)
    affine = None if same else (_column(scale, column), _column(shift, column))
    return Preprocessing(channel_order == "bgr", affine, layout == "channels-last")


def check_input_shape(input_shape: object) -> tuple[int, int, int]:
    """The shape as three plain ints (channels, height, width). Raises ``InputError`` if it isn't one."""
    sides = tuple(input_shape) if isinstance(input_shape, Sequence) and not isinstance(input_shape, str) else ()
    if len(sides) != 3 or not all(isinstance(side, (int, np.integer)) and side > 0 for side in sides):
        raise InputError(f"input_shape must be (channels, height, width), three positive integers, not {input_shape!r}")
    return int(sides[0]), int(sides[1]), int(sides[2])


def check_output(output: object) -> None:
    """Raise ``InputError`` unless output is ``logits`` or ``probabilities``."""
    if output not in ("logits", "probabilities"):
        raise InputError(f"output must be 'logits' or 'probabilities', not {output!r}")


def _numbers(name: str, values: Sequence[float], n: int) -> npt.NDArray[np.float64]:
    try:
        array = np.asarray(values, np.float64).reshape(-1)
    except (TypeError, ValueError) as exc:
        raise InputError(f"{name} must be {n} numbers, not {values!r}") from exc
    if len(array) not in ({n} if name == "input_range" else {1, n}) or not np.isfinite(array).all():
        raise InputError(f"{name} must be {n} finite numbers, not {values!r}")
    return array


def _column(values: npt.NDArray[np.float64], shape: tuple[int, int, int]) -> npt.NDArray[np.float32]:
    return np.ascontiguousarray(np.broadcast_to(values.reshape(-1, 1, 1), shape), np.float32)
