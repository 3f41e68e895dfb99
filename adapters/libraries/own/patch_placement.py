"""A patch in an image: where it may lie, which pixels it covers, and its gradient.

A turned, scaled and placed patch is a linear function of its pixels: one sparse matrix an image. Its rows are the
covered pixels, its values bilinear weights. Pasting multiplies by it, a gradient is multiplied by its transpose.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sparring.adapters.protocol import Images

Reals = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Range:
    """The possible placements: ``rotation`` in degrees either way, ``scales`` the least and the greatest."""

    size: int
    """side of the patch, or, where ``round``, its diameter: pixels, before it is scaled"""
    round: bool
    rotation: float
    scales: tuple[float, float]


@dataclass(frozen=True)
class Placed:
    """A patch of side s in one image of H x W pixels."""

    pixels: npt.NDArray[np.int64]
    """(P,): the covered pixels, in reading order, 0 to H W - 1"""
    weights: Any
    """sparse (P, s s): the share of each pixel of the patch in each covered one; rows sum to 1"""


def mask(size: int, round: bool) -> npt.NDArray[np.bool_]:
    """The visible pixels of a patch, (size, size): all, or those whose middle lies in the circle."""
    middle = np.arange(size) - (size - 1) / 2
    return _inside(middle[:, None] + 0 * middle, middle + 0 * middle[:, None], size, round)


def draw(generator: np.random.Generator, where: Range, height: int, width: int) -> Reals:
    """A placement: row and column of the patch's middle, degrees counterclockwise, scale. Four draws, always.

    Rotation and scale are uniform. Then the middle is uniform over the places at which the turned patch lies within the
    image. If there are none it is the middle of the image. The places are whole pixels apart: a patch that is neither
    turned nor scaled is not blurred.
    """
    shares = generator.random(4)
    degrees = where.rotation * (2 * shares[2] - 1)
    scale = where.scales[0] + shares[3] * (where.scales[1] - where.scales[0])
    reach = _reach(where, degrees, scale)
    row, column = (_place(share, side, where.size, reach) for share, side in zip(shares, (height, width), strict=False))
    return np.array([row, column, degrees, scale])


def place(placement: Reals, where: Range, height: int, width: int) -> Placed:
    """The covered pixels of an image and their weights. ``placement``: row, column, degrees, scale."""
    from scipy.sparse import csr_matrix

    row, column, degrees, scale = placement
    size, reach = where.size, _reach(where, degrees, scale)
    rows, columns = (
        np.arange(max(0, int(np.floor(middle - reach))), min(side, int(np.ceil(middle + reach)) + 1))
        for middle, side in ((row, height), (column, width))
    )
    down, right = np.meshgrid(rows - row, columns - column, indexing="ij")
    sine, cosine = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))
    # the origin of each pixel, relative to the middle of the patch: rotation and scale undone
    down, right = (cosine * down + sine * right) / scale, (cosine * right - sine * down) / scale
    covered = _inside(down, right, size, where.round)
    pixels = (rows[:, None] * width + columns)[covered]
    source = [np.clip(one[covered] + (size - 1) / 2, 0, size - 1) for one in (down, right)]
    low = [np.minimum(one.astype(np.int64), max(size - 2, 0)) for one in source]
    part = [one - floor for one, floor in zip(source, low, strict=True)]
    entries, of_pixel, of_patch = [], [], []
    for i in (0, 1):
        for j in (0, 1):
            entries.append(np.abs(1 - i - part[0]) * np.abs(1 - j - part[1]))
            of_pixel.append(np.arange(len(pixels)))
            of_patch.append(np.minimum(low[0] + i, size - 1) * size + np.minimum(low[1] + j, size - 1))
    corners = np.concatenate(entries), (np.concatenate(of_pixel), np.concatenate(of_patch))
    return Placed(pixels, csr_matrix(corners, shape=(len(pixels), size * size)))


def paste(x: Images, patch: npt.NDArray[Any], places: Sequence[Placed]) -> Images:
    """The images (N, C, H, W) with the patch (C, s, s), in [0, 1], at one place each; all other pixels as they were."""
    pasted = x.copy()
    flat = pasted.reshape(*x.shape[:2], x.shape[2] * x.shape[3])
    colors = patch.reshape(len(patch), -1).T.astype(np.float64)
    for image, placed in zip(flat, places, strict=True):
        image[:, placed.pixels] = np.clip((placed.weights @ colors).T, 0, 1)  # weights may sum to a little over 1
    return pasted


def pull(gradient: Images, places: Sequence[Placed], size: int) -> Reals:
    """The gradient with respect to the patch, (C, size, size), from that of the pasted images, (N, C, H, W)."""
    flat = gradient.reshape(*gradient.shape[:2], gradient.shape[2] * gradient.shape[3])
    total = np.zeros((size * size, gradient.shape[1]))
    for image, placed in zip(flat, places, strict=True):
        total += placed.weights.T @ image[:, placed.pixels].T.astype(np.float64)
    return np.ascontiguousarray(total.T).reshape(-1, size, size)


def _inside(down: Reals, right: Reals, size: int, round: bool) -> npt.NDArray[np.bool_]:
    """Whether points, relative to the middle of the patch, lie on it. A square's lower and right borders don't."""
    half = size / 2
    if round:
        return down**2 + right**2 <= half**2
    return (down >= -half) & (down < half) & (right >= -half) & (right < half)


def _reach(where: Range, degrees: float, scale: float) -> float:
    """How far the turned and scaled patch reaches from its middle, along rows and columns alike."""
    corner = 1.0 if where.round else abs(np.sin(np.radians(degrees))) + abs(np.cos(np.radians(degrees)))
    return float(where.size / 2 * scale * corner)


def _place(share: float, side: int, size: int, reach: float) -> float:
    """The middle of the patch along one side, ``share`` of the way through the places where it fits."""
    offset = (size - 1) / 2
    first, last = np.ceil(reach - 0.5 - offset - 1e-9), np.floor(side - 0.5 - reach - offset + 1e-9)
    if first > last:
        return float((side - size) // 2 + offset)
    return float(first + min(int(share * (last - first + 1)), last - first) + offset)
