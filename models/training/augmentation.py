"""Data augmentation: other images of the same classes, drawn anew for every batch, vectorised over it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from sparring.adapters.protocol import Images

Augment: TypeAlias = Callable[[Images, np.random.Generator], Images]
"""Images (N, C, H, W) in [0, 1] -> as many of the same shape, in [0, 1], drawn by the generator."""


def shift(x: Images, rng: np.random.Generator) -> Images:
    """Each image moved by up to 10 % of its sides, bilinear, its border pixels repeated."""
    from scipy.ndimage import shift

    offsets = rng.uniform(-0.1, 0.1, (len(x), 2)) * x.shape[2:]
    moved = [shift(image, (0, *offset), order=1, mode="nearest") for image, offset in zip(x, offsets, strict=True)]
    return np.stack(moved).clip(0, 1)


def flip_crop(x: Images, rng: np.random.Generator) -> Images:
    """Each image mirrored or not, then cut at random from itself padded by an eighth of its sides with black."""
    height, width = x.shape[2:]
    above, left = height // 8, width // 8
    x = np.where(rng.random(len(x))[:, None, None, None] < 0.5, x[..., ::-1], x)
    padded = np.pad(x, ((0, 0), (0, 0), (above, above), (left, left)))
    tops, lefts = rng.integers(0, 2 * above + 1, len(x)), rng.integers(0, 2 * left + 1, len(x))
    return np.stack([p[:, t : t + height, w : w + width] for p, t, w in zip(padded, tops, lefts, strict=True)])


def rotate_shift_zoom(
    x: Images, rng: np.random.Generator, *, degrees: float = 10.0, shift: float = 0.1, zoom: float = 0.2
) -> Images:
    """Each image turned, zoomed and moved about its centre, bilinear, its border pixels repeated.

    The angle is drawn from ±``degrees``, the moves from ±``shift`` of its sides, and the zoom of height and of width,
    each by itself, from 1 ± ``zoom``: Keras' ``ImageDataGenerator(rotation_range, width_shift_range,
    height_shift_range, zoom_range)``, whose ``apply_affine_transform`` this follows (bilinear, ``nearest``).
    """
    n, _, height, width = x.shape
    angle = np.deg2rad(rng.uniform(-degrees, degrees, n))
    moves = rng.uniform(-shift, shift, (n, 2)) * (height, width)
    zooms = rng.uniform(1 - zoom, 1 + zoom, (n, 2))
    return affine(x, angle, moves, zooms)


def affine(x: Images, angle: np.ndarray, moves: np.ndarray, zooms: np.ndarray) -> Images:
    """Where each pixel of the new image is read in the old one: turned by ``angle`` (N,), radians, then moved, zoomed.

    ``moves`` (N, 2) are in pixels, down and right; ``zooms`` (N, 2) are how much of the old height and width is seen.
    Bilinear; outside of the image its border is repeated. The whole batch at once, as
    ``scipy.ndimage.affine_transform`` (order 1, mode nearest) would one image after another.
    """
    n, channels, height, width = x.shape
    cos, sin = _columns(np.cos(angle)), _columns(np.sin(angle))
    (down, right), (tall, wide) = map(_columns, moves.T), map(_columns, zooms.T)
    i = np.arange(height, dtype=np.float32)[None, :, None] - (height - 1) / 2
    j = np.arange(width, dtype=np.float32)[None, None, :] - (width - 1) / 2
    # the inverse map: zoom the new pixel's place, move it, turn it
    i, j = tall * i + down, wide * j + right
    rows = (cos * i - sin * j + np.float32((height - 1) / 2)).clip(0, height - 1)
    columns = (sin * i + cos * j + np.float32((width - 1) / 2)).clip(0, width - 1)
    top, left = rows.astype(np.int32), columns.astype(np.int32)
    lower, later = rows - top, columns - left
    # an image of one more row and column, so that each pixel's four neighbours lie at fixed distances from the first
    padded = np.pad(x, ((0, 0), (0, 0), (0, 1), (0, 1))).reshape(n, channels, -1)
    first = top * (width + 1) + left
    made = np.empty_like(x)
    for channel in range(channels):
        flat = padded[:, channel].reshape(-1)
        places = first + (np.arange(n, dtype=np.int32) * padded.shape[2])[:, None, None]
        above = flat[places] * (1 - later) + flat[places + 1] * later
        below = flat[places + width + 1] * (1 - later) + flat[places + width + 2] * later
        made[:, channel] = above * (1 - lower) + below * lower
    return made


def _columns(values: np.ndarray) -> Images:
    """(N,) -> (N, 1, 1), to go with the pixels of each image."""
    return values.astype(np.float32)[:, None, None]


AUGMENT: dict[str, Augment] = {
    "none": lambda x, _: x,
    "shift": shift,
    "flip-crop": flip_crop,
    "rotate-shift-zoom": rotate_shift_zoom,
}
