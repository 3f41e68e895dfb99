"""Distances between images in every norm, and the projection onto a budget, in float64."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from sparring.adapters.protocol import Images

NORMS = ("l0", "l1", "l2", "linf")
TOLERANCE = 1e-6
"""What float32 arithmetic may add to a budget by rounding alone."""


def distances(x: Images, x_adv: Images) -> dict[str, npt.NDArray[np.float64]]:
    """Per image: ``l0`` (values that differ, each channel counts), ``l1``, ``l2``, ``linf``; each (N,), float64."""
    delta = np.abs(x_adv.astype(np.float64) - x.astype(np.float64)).reshape(len(x), math.prod(x.shape[1:]))
    return {
        "l0": np.count_nonzero(delta, axis=1).astype(np.float64),
        "l1": delta.sum(axis=1),
        "l2": np.sqrt((delta**2).sum(axis=1)),
        "linf": delta.max(axis=1),
    }


def project(x: Images, x_adv: Images, norm: str, eps: float) -> tuple[Images, npt.NDArray[np.bool_], float]:
    """Bring ``x_adv`` back into the ball of radius eps around x where it left it by more than ``TOLERANCE``.

    The norm is ``linf`` or ``l2``. Returns the images, which of them were moved (N,), and the largest excess over eps.
    """
    excess = distances(x, x_adv)[norm] - eps
    outside = excess > TOLERANCE
    if not outside.any():
        return x_adv, outside, max(0.0, float(excess.max(initial=0.0)))
    start = x[outside].astype(np.float64)
    delta = x_adv[outside].astype(np.float64) - start
    if norm == "linf":
        delta = np.clip(delta, -eps, eps)
    else:
        length = np.sqrt((delta**2).reshape(len(delta), -1).sum(axis=1)).reshape(-1, 1, 1, 1)
        delta *= eps / length
    projection = x_adv.copy()
    projection[outside] = np.clip(start + delta, 0.0, 1.0).astype(np.float32)
    return projection, outside, float(excess.max())
