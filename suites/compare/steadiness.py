"""Unsteady images: if one is moved by a rounding of float32 before the attack, the attack ends elsewhere.

An attack may pass a kink of the network (a rectifier, a maximum) or a decision boundary within rounding. Then the last
bit of its arithmetic decides on which side it goes on, and its end tells nothing of the library.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from sparring.adapters.protocol import Images

SEEDS = (1, 2, 3)
"""The seeds of the moves: there are several because one move may miss a kink."""


def unsteady(images: Images, of_nudged: Iterable[Images], tolerance: float) -> npt.NDArray[np.bool_]:
    """Which images (N,) end up more than ``tolerance`` away, in any pixel, when they are moved before the attack.

    ``images`` and each of ``of_nudged``, (N, C, H, W), are the attack's images without and with a move.
    """
    moved = np.zeros(len(images), bool)
    for others in of_nudged:
        moved |= np.abs(images - others).max(axis=(1, 2, 3), initial=0) > tolerance
    return moved
