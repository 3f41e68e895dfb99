"""Transforms of images that draw random numbers; the way back is the derivative for the numbers drawn.

They are ``Transform``s of ``transformed.py``.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sparring.adapters.protocol import Images
from sparring.adapters.wrappers.transformed import Coins, Pull, Transform
from sparring.adapters.wrappers.transforms import straight_through, two_sided

Reals = npt.NDArray[np.float64]


def random_noise(std: float) -> Transform:
    """Add normal noise of standard deviation ``std``, and clip to the box. Where it clips, the derivative is 0."""

    def transform(x: Images, coins: Coins) -> tuple[Images, Pull]:
        draws = [coins(row).standard_normal(x.shape[1:], np.float32) for row in range(len(x))]
        images = x + np.float32(std) * np.reshape(draws, x.shape).astype(np.float32)
        return np.clip(images, 0, 1), lambda g: g * ((images >= 0) & (images <= 1))

    return transform


def random_rotation(rotation: float) -> Transform:
    """Rotate by up to ``rotation`` degrees either way: ``randomization`` with nothing else."""
    return randomization(rotation=rotation, shift=0, zoom=0, std=0)


def random_shift(shift: float) -> Transform:
    """Shift by up to ``shift`` of each side either way: ``randomization`` with nothing else."""
    return randomization(rotation=0, shift=shift, zoom=0, std=0)


def randomization(rotation: float, shift: float, zoom: float, std: float) -> Transform:
    """Rotate, shift and zoom about the middle in one bilinear step, with repeated edges; then add ``random_noise``.

    ``rotation`` is in degrees, ``shift`` and ``zoom`` are shares of the side. Each is drawn uniformly either way, for
    each side apart.
    """

    def transform(x: Images, coins: Coins) -> tuple[Images, Pull]:
        generators = [coins(row) for row in range(len(x))]
        draws = np.reshape([generator.uniform(-1, 1, 5) for generator in generators], (len(x), 5))
        angle, down, right = np.radians(rotation) * draws[:, 0], shift * draws[:, 1], shift * draws[:, 2]
        images, pull = _moved(x, angle, np.stack([down, right]), 1 + zoom * draws[:, 3:].T)
        if not std:
            return images, pull
        noisy, pull_noise = random_noise(std)(images, lambda row: generators[row])
        return noisy, lambda g: pull(pull_noise(g))

    return transform


def _moved(x: Images, angle: Reals, shift: Reals, zoom: Reals) -> tuple[Images, Pull]:
    """Each image turned, shifted and zoomed: ``angle`` (N,), radians; ``shift``, ``zoom`` (2, N), rows and columns."""
    n, channels, height, width = x.shape
    sides = np.array([height, width])
    middle = (sides - 1) / 2
    down, right = np.meshgrid(np.arange(height) - middle[0], np.arange(width) - middle[1], indexing="ij")
    # where each pixel comes from: what was done, undone in reverse
    down, right = (down[:, :, None] - shift[0] * height) / zoom[0], (right[:, :, None] - shift[1] * width) / zoom[1]
    sine, cosine = np.sin(angle), np.cos(angle)
    source = [cosine * down - sine * right + middle[0], sine * down + cosine * right + middle[1]]
    corners = _corners([np.clip(one, 0, side - 1).transpose(2, 0, 1) for one, side in zip(source, sides, strict=True)])
    flat = x.reshape(n, channels, height * width)
    images = np.zeros((n, channels, height * width), np.float32)
    for place, weight in corners:
        images += weight[:, None] * np.take_along_axis(flat, place[:, None], axis=2)

    def pull(gradient: Images) -> Images:
        g = gradient.reshape(flat.shape)
        first = (np.arange(n * channels) * height * width).reshape(n, channels, 1)
        total = np.zeros(x.size)
        for place, weight in corners:
            total += np.bincount((first + place[:, None]).ravel(), (weight[:, None] * g).ravel(), x.size)
        return total.reshape(x.shape).astype(np.float32)

    return np.clip(images.reshape(x.shape), 0, 1), pull  # weights may sum to a little more than 1


def _corners(source: list[Reals]) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
    """The four pixels around each point, flat indices (N, H * W), with their bilinear weights, float32."""
    (n, height, width), corners = source[0].shape, []
    low = [
        np.minimum(one.astype(np.int64), max(side - 2, 0)) for one, side in zip(source, (height, width), strict=True)
    ]
    part = [one - floor for one, floor in zip(source, low, strict=True)]
    for down in (0, 1):
        for right in (0, 1):
            weight = np.abs(1 - down - part[0]) * np.abs(1 - right - part[1])
            place = np.minimum(low[0] + down, height - 1) * width + np.minimum(low[1] + right, width - 1)
            flat = n, height * width
            corners.append((place.reshape(flat), weight.reshape(flat).astype(np.float32)))
    return corners


def random_resize_pad(smallest: float) -> Transform:
    """Shrink (bilinear) to a random share of the side, from ``smallest`` to all of it, and put at random on black.

    Xie et al. 2018, section 3. They enlarge 299 pixels to up to 331 and pad to 331. Here the images keep the size that
    the network takes, so the largest image is the original.
    """

    def transform(x: Images, coins: Coins) -> tuple[Images, Pull]:
        draws = [_placed(coins(row), x.shape[2], x.shape[3], smallest) for row in range(len(x))]
        rows = np.reshape([one for one, _ in draws], (len(x), 1, x.shape[2], x.shape[2])).astype(np.float32)
        columns = np.reshape([one for _, one in draws], (len(x), 1, x.shape[3], x.shape[3])).astype(np.float32)
        back = np.swapaxes(rows, -1, -2), np.swapaxes(columns, -1, -2)
        return np.clip(two_sided(x, rows, columns), 0, 1), lambda g: two_sided(g, *back)

    return transform


def _placed(generator: np.random.Generator, height: int, width: int, smallest: float) -> tuple[Reals, Reals]:
    """Two matrices, of the rows and of the columns: they shrink the image and put it in its place on black."""
    share = generator.uniform(smallest, 1)
    return _shrunk(height, share, generator.uniform()), _shrunk(width, share, generator.uniform())


def _shrunk(side: int, share: float, where: float) -> Reals:
    small = max(1, round(side * share))
    point = np.clip((np.arange(small) + 0.5) * side / small - 0.5, 0, side - 1)
    first = int(where * (side - small + 1))
    matrix = np.zeros((side, side))
    matrix[first : first + small] = np.maximum(0, 1 - np.abs(point[:, None] - np.arange(side)))
    return matrix


def total_variation(weight: float, keep: float, steps: int) -> Transform:
    """Keep each pixel with the chance ``keep``, and take the image of least variation near the pixels that are kept.

    It minimizes half the squared distance over these pixels plus ``weight`` times the (isotropic) total variation of
    each channel, over images in the box, with ``steps`` of Chambolle, Pock 2011, algorithm 1. Guo et al. 2018, section
    4.3, has the distance itself in place of half its square. The way back is straight through, as in Athalye, Carlini,
    Wagner 2018, section 5.4.
    """

    def transform(x: Images, coins: Coins) -> tuple[Images, Pull]:
        if keep == 1:
            mask = np.ones_like(x)
        else:
            draws = [coins(row).random(x.shape[1:]) < keep for row in range(len(x))]
            mask = np.reshape(draws, x.shape).astype(np.float32)
        return _least_varied(x * mask, mask, np.float32(weight), steps), straight_through

    return transform


def _least_varied(x: Images, mask: Images, weight: np.float32, steps: int) -> Images:
    step = np.float32(8**-0.5)  # both steps: their product times the squared norm of the difference operator is 1
    images = ahead = x
    dual = np.zeros((2, *x.shape), np.float32)
    for _ in range(steps):
        dual += step * _differences(ahead)
        dual /= np.maximum(1, np.sqrt((dual**2).sum(axis=0)) / weight)
        previous = images
        images = np.clip((images - step * _summed(dual) + step * x) / (1 + step * mask), 0, 1)
        ahead = 2 * images - previous
    return images


def _differences(x: Images) -> npt.NDArray[np.float32]:
    """The differences to the pixel below and to the right, (2, N, C, H, W); 0 at the border."""
    differences = np.zeros((2, *x.shape), np.float32)
    differences[0, :, :, :-1] = x[:, :, 1:] - x[:, :, :-1]
    differences[1, :, :, :, :-1] = x[:, :, :, 1:] - x[:, :, :, :-1]
    return differences


def _summed(dual: npt.NDArray[np.float32]) -> Images:
    """The transpose of ``_differences``."""
    sums = np.zeros(dual.shape[1:], np.float32)
    sums[:, :, 1:] += dual[0, :, :, :-1]
    sums[:, :, :-1] -= dual[0, :, :, :-1]
    sums[:, :, :, 1:] += dual[1, :, :, :, :-1]
    sums[:, :, :, :-1] -= dual[1, :, :, :, :-1]
    return sums
