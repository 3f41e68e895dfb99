"""Images brought to one size and number of channels, and a data set split anew: ``size``, ``channels``, ``test_share``.

Whatever the data come from, they come as a ``Pool``; what is asked for is a pool again, and still nothing but the
images that are drawn is read.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sparring.adapters.errors import InputError
from sparring.adapters.protocol import Images
from sparring.models.data.pool import Indices, Pool, Progress, Split
from sparring.models.spec import DataSpec

LUMA = (0.299, 0.587, 0.114)
"""Red, green and blue of a grey value: ITU-R BT.601, as Pillow's ``convert("L")`` has it."""


def reshaped(pool: Pool, spec: DataSpec) -> Pool:
    """The pool, with images of the ``channels`` and the ``size`` that the spec asks for.

    Raises ``InputError``, once images are fetched, for channels that are neither 1 nor 3.
    """
    if spec.size is None and spec.channels is None:
        return pool

    def fetch(chosen: Indices, progress: Progress | None) -> Images:
        x = pool.fetch(chosen, progress)
        x = with_channels(x, 1) if spec.channels == 1 else x
        x = resized(x, spec.size) if spec.size else x
        return with_channels(x, 3) if spec.channels == 3 else x  # last: three equal channels are resized as one

    return replace(pool, fetch=fetch)


def with_channels(x: Images, channels: int) -> Images:
    """Grey images three times over, or the luma of color images; ``channels`` is 1 or 3, (N, C, H, W) in [0, 1].

    Raises ``InputError`` for images that have another number of channels than 1 or 3, and than ``channels``.
    """
    if x.shape[1] == channels:
        return x
    if x.shape[1] not in (1, 3):
        raise InputError(f"data.channels: the images have {x.shape[1]} channels: only 1 and 3 are made of each other")
    if channels == 3:
        return np.repeat(x, 3, axis=1)
    red, green, blue = (np.float32(share) * x[:, i] for i, share in enumerate(LUMA))
    grey: Images = (red + green + blue)[:, None]
    np.clip(grey, 0, 1, out=grey)  # float32's shares of one don't quite add up to it
    return grey


def resized(x: Images, size: int) -> Images:
    """Images (N, C, H, W) in [0, 1] as (N, C, size, size): bilinear, antialiased where it shrinks, as Pillow has it.

    The same numbers in every sample and on every machine: a product of matrices would round as its size and the
    processor say.
    """
    if x.shape[2:] == (size, size):
        return x
    rows = _along_the_last(np.ascontiguousarray(_along_the_last(x, size).swapaxes(2, 3)), size)
    return np.clip(rows.swapaxes(2, 3), 0, 1, order="C")


def _along_the_last(x: Images, size: int) -> Images:
    length = x.shape[-1]
    if length == size:
        return x
    scale = length / size
    reach = max(scale, 1.0)
    centre = (np.arange(size)[:, None] + 0.5) * scale
    weights = np.maximum(0, 1 - abs(np.arange(length) + 0.5 - centre) / reach)
    weights /= weights.sum(axis=1, keepdims=True)
    first, taps = (weights > 0).argmax(axis=1), int((weights > 0).sum(axis=1).max())
    sums = np.zeros((*x.shape[:-1], size), np.float32)
    for tap in range(taps):
        place = np.minimum(first + tap, length - 1)
        weight = np.where(first + tap < length, weights[np.arange(size), place], 0).astype(np.float32)
        sums += x[..., place] * weight
    return sums


def split_anew(parts: list[Pool], share: float, split: Split) -> Pool:
    """One part of all images of the pools together: by a permutation of seed 0, ``share`` of them are the test part.

    Raises ``InputError`` where that leaves a part empty.
    """
    counts = [len(part.labels) for part in parts]
    total, first = sum(counts), np.cumsum([0, *counts])
    tests = round(share * total)
    if not 0 < tests < total:
        raise InputError(f"data.test_share: {share:g} of {total} images leaves a part without any")
    order = np.random.default_rng(0).permutation(total)
    indices = np.sort(order[:tests] if split == "test" else order[tests:])

    def fetch(chosen: Indices, progress: Progress | None) -> Images:
        wanted = indices[chosen]
        found: Images | None = None
        for start, part in zip(first, parts, strict=False):
            here = np.flatnonzero((wanted >= start) & (wanted < start + len(part.labels)))
            if len(here):
                x = part.fetch(wanted[here] - start, progress)
                found = np.empty((len(wanted), *x.shape[1:]), np.float32) if found is None else found
                if x.shape[1:] != found.shape[1:]:
                    sides = " and ".join(" x ".join(map(str, shape[1:])) for shape in (found.shape, x.shape))
                    raise InputError(f"data.test_share: the parts hold images of {sides}: set data.size")
                found[here] = x
        return parts[0].fetch(chosen, progress) if found is None else found

    labels = np.concatenate([part.labels for part in parts])[indices]
    # without names of their own the classes are counted, and a part may lack the last ones
    return Pool(labels, max((part.class_names for part in parts), key=len), fetch, facts=parts[0].facts)
