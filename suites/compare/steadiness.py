"""Images on which an attack is unsteady: moved by a rounding of float32, they end elsewhere.

On its way an attack may pass a kink of the network (a rectifier, a maximum) or a decision within rounding of where it
is. Then the last bit of its arithmetic decides on which side it goes on, and the end says nothing of the library.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from sparring.adapters.protocol import Images

SEEDS = (1, 2, 3)
"""Of the moves that are tried; any of them may miss a kink."""


def unsteady(images: Images, of_nudged: Iterable[Images], tolerance: float) -> npt.NDArray[np.bool_]:
    """Which images (N,) end more than ``tolerance`` elsewhere, in any pixel, when they are moved before the attack."""
    found = np.zeros(len(images), bool)
    for others in of_nudged:
        found |= np.abs(images - others).max(axis=(1, 2, 3), initial=0) > tolerance
    return found
