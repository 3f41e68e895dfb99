"""One random start for every library: a point of the ball around each image, drawn by NumPy from the seed."""

from __future__ import annotations

import math

import numpy as np

from sparring.adapters.errors import InputError
from sparring.adapters.protocol import Images


def draw_start(x: Images, norm: str, eps: float, seed: int) -> Images:
    """A point of the ball of radius eps around each image, (N, C, H, W), float32, in the box.

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
