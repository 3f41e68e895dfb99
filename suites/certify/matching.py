"""Match the layers of two networks by their outputs, whatever the layers are called and however these are laid out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sparring.models.layers.layer import Layer

ROUNDING = 3e-6
"""Up to this share of a layer's largest output a difference is always rounding."""
JUMP = 10.0
"""Rounding may grow to this multiple of the largest rounding in the layers before ..."""
MOST = 1e-3
"""... but never beyond this share of the largest output."""

_AXES: dict[int, list[tuple[int, ...]]] = {3: [(0, 1, 2), (0, 2, 1)], 4: [(0, 1, 2, 3), (0, 3, 1, 2), (0, 2, 3, 1)]}

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Matched:
    """For each layer of A the nearest layer of B, and their distance as a share of the largest output.

    Where no layer of B has outputs of that size these are -1 and infinity. ``good_a`` and ``good_b`` say which layers
    have a counterpart in the other network.
    """

    nearest: tuple[int, ...]
    error: tuple[float, ...]
    good_a: tuple[bool, ...]
    good_b: tuple[bool, ...]

    @property
    def limit(self) -> float:
        """The largest difference that is rounding, as a share of a layer's largest output."""
        return _limit(max((off for off, good in zip(self.error, self.good_a, strict=True) if good), default=0.0))


def match(a: Sequence[Layer], b: Sequence[Layer]) -> Matched:
    """Match layers by their outputs; the output of a whole network matches only that of the other."""
    signatures = [_signature(layer.values) for layer in b]
    nearest, error, good_a, good_b = [], [], [], [False] * len(b)
    largest = 0.0
    for i, layer in enumerate(a):
        best, least, own = -1, float("inf"), _signature(layer.values)
        counts = i in (0, len(a) - 1) or varies(layer)
        for j in range(len(b) - 1, len(b)) if i == len(a) - 1 else range(len(b) - 1):
            if not _alike(own, signatures[j]):
                continue
            laid_out = layouts(layer.values, b[j].values)
            distance = min((relative_distance(layer.values, values) for values in laid_out), default=np.inf)
            good_b[j] |= counts and distance <= _limit(largest)
            if distance < least:
                best, least = j, float(distance)
        good_a.append(counts and least <= _limit(largest))
        if good_a[-1]:
            largest = max(largest, least)
        nearest.append(best)
        error.append(least)
    return Matched(tuple(nearest), tuple(error), tuple(good_a), tuple(good_b))


def _limit(largest: float) -> float:
    return min(MOST, max(ROUNDING, JUMP * largest))


def varies(layer: Layer) -> bool:
    """Whether the layer's output depends on the image; a constant output tells nothing of the layers before."""
    return bool((layer.values != layer.values[:1]).any())


def layouts(like: Floats, values: Floats) -> Iterator[Floats]:
    """Yield the values in the shape of ``like``: as they are, and with the channels moved to the front or the end."""
    if like.size != values.size:
        return
    for axes in _AXES.get(values.ndim, [tuple(range(values.ndim))]):
        turned = values.transpose(axes)
        if turned.shape == like.shape or min(like.ndim, values.ndim) == 2 or _squeezed(turned) == _squeezed(like):
            yield np.ascontiguousarray(turned).reshape(like.shape)


def _squeezed(values: Floats) -> tuple[int, ...]:
    return tuple(side for side in values.shape if side != 1)


def _signature(values: Floats) -> tuple[int, float, float]:
    """What every layout leaves the same: the number of values, their mean and their root mean square."""
    numbers = values.astype(np.float64)
    return values.size, float(numbers.mean()), float(np.sqrt((numbers**2).mean()))


def _alike(one: tuple[int, float, float], other: tuple[int, float, float]) -> bool:
    if one[0] != other[0]:
        return False
    size = max(one[2], other[2])
    return bool(abs(one[1] - other[1]) <= 0.05 * size and abs(one[2] - other[2]) <= 0.05 * size)


def relative_distance(a: Floats, b: Floats) -> float:
    """The largest difference as a share of the largest value of ``a``."""
    size = float(np.abs(a).max(initial=0))
    delta = float(np.abs(a - b).max(initial=0))
    return delta / size if size else (0.0 if delta == 0 else float("inf"))


def agree(one: Layer, other: Layer, limit: float) -> bool:
    """Whether two layers give the same numbers within ``limit``, in some layout."""
    return any(relative_distance(one.values, values) <= limit for values in layouts(one.values, other.values))
