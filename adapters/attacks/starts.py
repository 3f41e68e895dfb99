"""Starting points, drawn by NumPy from the seed in one way for every library."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sparring.adapters.errors import InputError
from sparring.adapters.protocol import Images, Labels

Decide = Callable[[Images], Labels]
HALVINGS = 10


class Starts(NamedTuple):
    """``rows`` (M,): the images of the batch that an attack starts on; ``points`` (M, C, H, W): where it starts."""

    rows: npt.NDArray[np.intp]
    points: Images


def find_starts(decide: Decide, x: Images, labels: Labels, targeted: bool, draws: int) -> Starts:
    """For each image a start: an image that the classifier takes for another class (targeted: for the target).

    First it tries up to ``draws`` images of uniform noise, as HopSkipJump and the Boundary Attack do. Where none fits,
    it takes another image of the batch with a fitting class, as both papers do for targets. Then the start moves along
    the line towards its image, to just before the boundary. Left out are images that need no attack, and those without
    a start.
    """
    rng = np.random.default_rng(random.getrandbits(64))
    predicted = decide(x)
    rows = np.flatnonzero((predicted != labels) if targeted else (predicted == labels))

    def fits(images: Images, of: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
        decided = decide(images)
        fitting: npt.NDArray[np.bool_] = (decided == labels[of]) if targeted else (decided != labels[of])
        return fitting

    points, missing = np.empty_like(x[rows]), np.arange(len(rows))
    for _ in range(draws):
        if not len(missing):
            break
        noise = rng.random((len(missing), *x.shape[1:]), dtype=np.float32)
        hit = fits(noise, rows[missing])
        points[missing[hit]] = noise[hit]
        missing = missing[~hit]
    startable = np.ones(len(rows), bool)
    for index in missing:
        label = labels[rows[index]]
        others = np.flatnonzero((predicted == label) if targeted else (predicted != label))
        startable[index] = len(others) > 0
        if len(others):
            points[index] = x[rng.choice(others)]
    rows, points = rows[startable], points[startable]

    if len(rows):
        near, far = np.zeros(len(rows), np.float32), np.ones(len(rows), np.float32)
        for _ in range(HALVINGS):
            middle = ((near + far) / 2).astype(np.float32)
            hit = fits(_between(x[rows], points, middle), rows)
            far, near = np.where(hit, middle, far), np.where(hit, near, middle)
        points = _between(x[rows], points, far)
    return Starts(rows, points)


def _between(x: Images, points: Images, share: npt.NDArray[np.float32]) -> Images:
    weight = share[:, None, None, None]
    return np.clip((1 - weight) * x + weight * points, 0, 1).astype(np.float32, copy=False)


def draw_start(x: Images, norm: str, eps: float, seed: int) -> Images:
    """A random point of the ball of radius eps around each image, (N, C, H, W), float32, in the box.

    ``linf``: uniform in the cube [-eps, eps] (Madry et al. 2018, section 2.1). ``l2``: uniform in the ball, a normal
    direction at the distance eps · U^(1/d). Raises ``InputError`` for another norm.
    """
    rng = np.random.default_rng(seed)
    if norm == "linf":
        delta = rng.uniform(-eps, eps, x.shape)
    elif norm == "l2":
        delta = rng.standard_normal(x.shape)
        length = np.sqrt((delta**2).sum(axis=(1, 2, 3), keepdims=True))
        radius = eps * rng.uniform(0, 1, (len(x), 1, 1, 1)) ** (1 / math.prod(x.shape[1:]))
        delta *= radius / length
    else:
        raise InputError(f"a random start needs the norm linf or l2, not {norm}")
    start: Images = np.clip(x.astype(np.float64) + delta, 0, 1).astype(np.float32)
    return start
