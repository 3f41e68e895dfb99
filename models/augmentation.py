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
    Bilinear; outside of the image its border is repeated. All of a batch at once: 20 times as fast as one call of
    ``scipy.ndimage.affine_transform`` for each image.
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
    top, left = rows.astype(np.intp), columns.astype(np.intp)
    bottom, beside = np.minimum(top + 1, height - 1), np.minimum(left + 1, width - 1)
    lower, later = (rows - top)[:, None], (columns - left)[:, None]
    flat = x.reshape(n, channels, height * width)

    def read(row: np.ndarray, at: np.ndarray) -> Images:
        places = (row * width + at).reshape(n, 1, -1)
        found: Images = np.take_along_axis(flat, places, axis=2).reshape(x.shape)
        return found

    upper_row = read(top, left) * (1 - later) + read(top, beside) * later
    lower_row = read(bottom, left) * (1 - later) + read(bottom, beside) * later
    made: Images = upper_row * (1 - lower) + lower_row * lower
    return made.astype(np.float32, copy=False)


def _columns(values: np.ndarray) -> Images:
    """(N,) -> (N, 1, 1), to go with the pixels of each image."""
    return values.astype(np.float32)[:, None, None]


AUGMENT: dict[str, Augment] = {
    "none": lambda x, _: x,
    "shift": shift,
    "flip-crop": flip_crop,
    "rotate-shift-zoom": rotate_shift_zoom,
}
