"""A layer of A beside a layer of B, and the arithmetic that tells how their numbers are related."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from sparring.models.layers.layer import Layer

Floats = npt.NDArray[np.float32]
Wide = npt.NDArray[np.float64]

CLOSE = 2e-5
"""A rule explains numbers that are this near to what it gives, as a share of the largest."""


@dataclass(frozen=True)
class LayerPair:
    """A layer of A and one of B with outputs of one size, ``b`` laid out as ``a``; and the layers that they take.

    ``inputs_agree``: both take the same numbers, in whatever layout. ``biases_comparable``: False where only one of
    the two is followed by a batch normalization, which may hold its bias.
    """

    layer_a: Layer
    layer_b: Layer
    a: Floats
    b: Floats
    takes_a: Layer | None
    takes_b: Layer | None
    inputs_agree: bool
    biases_comparable: bool = True


@dataclass(frozen=True)
class Cause:
    """Why two outputs differ, in words.

    A cause that isn't ``certain`` would also hold of a layer and the next one; ``far`` is then the largest difference
    of the two outputs.
    """

    text: str
    certain: bool = True
    far: float = 0.0


def close(expected: Any, actual: Any, share: float = CLOSE, scale: float | None = None) -> bool:
    """Whether no number is further off than this share of the largest expected, or of ``scale``."""
    expected, actual = np.asarray(expected), np.asarray(actual)
    if expected.shape != actual.shape:
        return False
    size = float(np.abs(expected).max(initial=0)) if scale is None else scale
    return bool(np.abs(expected - actual).max(initial=0) <= share * max(size, 1e-30))


def same(one: Any, other: Any) -> bool:
    """Whether two arrays of weights are equal, as copies are."""
    return one.shape == other.shape and close(one, other, 1e-6)


def affine(a: Floats, b: Floats) -> tuple[Wide, Wide, npt.NDArray[np.bool_]] | None:
    """The factor and the constant, (channels,), that turn every channel of ``a`` into that of ``b``.

    The third value says which channels vary at all. None where no such factors exist.
    """
    if a.ndim < 2 or (a.shape[1] == 1 and a.ndim == 2):
        return None
    one, other = (v.astype(np.float64).swapaxes(0, 1).reshape(v.shape[1], -1) for v in (a, b))
    if one.shape[1] < 4:
        return None
    mean_a, mean_b = one.mean(axis=1, keepdims=True), other.mean(axis=1, keepdims=True)
    square = ((one - mean_a) ** 2).sum(axis=1)
    live = square > 1e-10 * max(float((one**2).sum(axis=1).max()), 1e-30)
    if not live.any():
        return None
    factor = np.where(live, ((one - mean_a) * (other - mean_b)).sum(axis=1) / np.where(live, square, 1), 1.0)
    shift = (mean_b - factor[:, None] * mean_a)[:, 0]
    if not close(factor[:, None] * one + shift[:, None], other, 1e-5):
        return None
    return factor, shift, live


def permutation(one: Floats, other: Floats) -> npt.NDArray[np.int64] | None:
    """Where each row of ``other`` stands in ``one``, if it holds the same rows in another order; else None."""
    size = float(np.abs(one).max(initial=0))
    if one.shape != other.shape or not size or close(one, other):
        return None
    a, b = one.astype(np.float64), other.astype(np.float64)
    if a.shape[1] > 64:  # enough to tell rows apart; what they are is compared in full below
        picked = np.random.default_rng(0).choice(a.shape[1], 64, replace=False)
        tree, wanted = cKDTree(a[:, picked]), b[:, picked]
    else:
        tree, wanted = cKDTree(a), b
    _, neighbors = tree.query(wanted, k=min(4, len(a)))
    neighbors = neighbors.reshape(len(b), -1)
    taken: set[int] = set()
    order = np.zeros(len(b), np.int64)
    for row, near in enumerate(neighbors):
        fits = [int(k) for k in near if np.abs(a[k] - b[row]).max() <= CLOSE * size]
        if not fits:
            return None
        # a row that didn't move is taken for itself; rows that are equal (all zeros) may stand for one another
        order[row] = row if row in fits else next((k for k in fits if k not in taken), fits[0])
        taken.add(int(order[row]))
    still = [row for row in range(len(a)) if np.abs(a[row] - b[row]).max() <= CLOSE * size]
    order[still] = still
    return order if len(still) < len(a) else None


def moves(order: npt.NDArray[np.int64]) -> str:
    """Describe in a few words what moved where."""
    moved = [(row, int(k)) for row, k in enumerate(order) if row != k]
    if len(moved) == 2 and moved[0] == moved[1][::-1]:
        return f"{moved[0][0]} and {moved[0][1]} are swapped"
    if (order == np.arange(len(order))[::-1]).all():
        return "they are reversed"
    examples = ", ".join(f"{k} of A at {row}" for row, k in moved[:3])
    return f"{len(moved)} of {len(order)} moved ({examples}{', ...' if len(moved) > 3 else ''})"


def span(values: Wide) -> str:
    """The values as text: up to three of them, or the smallest and the largest."""
    if len(values) <= 3:
        return ", ".join(f"{value:.4g}" for value in values)
    return f"{values.min():.4g} to {values.max():.4g}"


def flatten_order(order: npt.NDArray[np.int64]) -> str:
    """Describe the order if it is that of an image flattened channels-last in place of channels-first, or the reverse.

    "" for any other order.
    """
    size = len(order)
    if size == 3 and tuple(order) == (2, 1, 0):
        return "the three channels are reversed (RGB against BGR)"
    for channels in range(2, size // 2 + 1):
        if size % channels == 0 and (order == np.arange(size).reshape(channels, -1).T.ravel()).all():
            return (
                f"that of {channels} x {size // channels} numbers flattened the other way round (channels first, last)"
            )
    return ""
