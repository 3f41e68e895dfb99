"""Transforms of images that draw nothing, each with its way back for a gradient.

They are ``Transform``s of ``transformed.py``. Where a transform has a derivative almost everywhere, that is its way
back. Where the derivative is zero almost everywhere (rounding, JPEG), the way back is the identity: the
straight-through estimate of Athalye, Carlini, Wagner 2018, section 4.1.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt

from sparring.adapters.protocol import Images
from sparring.adapters.wrappers.transformed import Coins, Pull, Transform

Floats = npt.NDArray[np.float32]


def bit_depth(levels: int) -> Transform:
    """Round to the nearest of ``levels`` values evenly spread over [0, 1] (Xu, Evans, Qi 2018, section 4.1)."""

    def transform(x: Images, coins: Coins) -> tuple[Images, Pull]:
        steps = np.float32(levels - 1)
        return np.rint(np.clip(x, 0, 1) * steps) / steps, straight_through

    return transform


def median_smoothing(size: int) -> Transform:
    """The median of the ``size`` x ``size`` window of each pixel, mirrored at the border (Xu, Evans, Qi 2018, 4.2).

    A window of even size reaches further up and left, and the larger of the two middle values counts, as in
    ``scipy.ndimage.median_filter``. The derivative is 1 for the pixel that is the median, else 0.
    """

    def transform(x: Images, coins: Coins) -> tuple[Images, Pull]:
        from scipy.ndimage import median_filter

        return median_filter(x, size=(1, 1, size, size), mode="reflect"), lambda g: _to_the_medians(x, g, size)

    return transform


def _to_the_medians(x: Images, gradient: Images, size: int) -> Images:
    height, width = x.shape[2:]
    before, after = size // 2, size - 1 - size // 2
    margin = ((before, after), (before, after))
    places = _windows(np.pad(np.arange(height * width).reshape(height, width), margin, mode="symmetric"), size)
    sums = np.zeros((*x.shape[:2], height * width), np.float64)
    for row, image in enumerate(x):  # one at a time, for the windows hold every pixel size ** 2 times
        for channel, plane in enumerate(image):
            windows = _windows(np.pad(plane, margin, mode="symmetric"), size)
            middle = np.argpartition(windows, size**2 // 2, axis=1)[:, size**2 // 2]
            source = places[np.arange(height * width), middle]
            sums[row, channel] = np.bincount(source, gradient[row, channel].ravel(), height * width)
    return sums.reshape(x.shape).astype(np.float32)


def _windows(plane: npt.NDArray[Any], size: int) -> npt.NDArray[Any]:
    return np.lib.stride_tricks.sliding_window_view(plane, (size, size)).reshape(-1, size**2)


def mean_smoothing(size: int) -> Transform:
    """The mean of the ``size`` x ``size`` window of each pixel, window and border as in ``median_smoothing``."""
    return separable(lambda n: _filtering("uniform_filter1d", n, size))


def gaussian_blur(sigma: float) -> Transform:
    """SciPy's Gaussian filter of ``sigma`` pixels, cut off at 4 sigma and mirrored at the border."""
    return separable(lambda n: _filtering("gaussian_filter1d", n, sigma))


@lru_cache(maxsize=64)
def _filtering(name: str, n: int, width: float) -> Floats:
    from scipy import ndimage

    filtered: Floats = getattr(ndimage, name)(np.eye(n), width, axis=0, mode="reflect").astype(np.float32)
    return filtered


def separable(matrix: Callable[[int], Floats]) -> Transform:
    """A filter made of one matrix for rows and one for columns: ``matrix(n)`` is n x n, and its rows sum to 1.

    The way back is the two matrices transposed.
    """

    def transform(x: Images, coins: Coins) -> tuple[Images, Pull]:
        rows, columns = matrix(x.shape[2]), matrix(x.shape[3])
        return np.clip(two_sided(x, rows, columns), 0, 1), lambda g: two_sided(g, rows.T, columns.T)

    return transform


def two_sided(x: Floats, rows: Floats, columns: Floats) -> Floats:
    """``rows @ x @ columns.T`` for each image and channel; the sums of an image don't depend on its batch."""
    product: Floats = np.matmul(np.matmul(rows, x), np.swapaxes(columns, -1, -2))
    return product


def jpeg(quality: int) -> Transform:
    """JPEG at Pillow's ``quality``: three channels as RGB with color at half the resolution, others each as gray."""

    def transform(x: Images, coins: Coins) -> tuple[Images, Pull]:
        pixels = np.rint(np.clip(x, 0, 1) * 255).astype(np.uint8).transpose(0, 2, 3, 1)
        decoded = np.stack([_through_jpeg(image, quality) for image in pixels]) if len(x) else pixels
        return np.ascontiguousarray(decoded.transpose(0, 3, 1, 2), np.float32) / np.float32(255), straight_through

    return transform


def _through_jpeg(image: npt.NDArray[np.uint8], quality: int) -> npt.NDArray[np.uint8]:
    """uint8 (H, W, C) to the same."""
    from PIL import Image

    planes = [image] if image.shape[2] == 3 else [image[..., channel] for channel in range(image.shape[2])]
    channels = []
    for plane in planes:
        file = BytesIO()
        Image.fromarray(np.ascontiguousarray(plane)).save(file, "jpeg", quality=quality, subsampling=2)
        with Image.open(file) as picture:
            channels.append(np.asarray(picture).reshape(*image.shape[:2], -1))
    return np.concatenate(channels, axis=2)


def straight_through(gradient: Images) -> Images:
    """As if nothing had been done to the image."""
    return gradient
