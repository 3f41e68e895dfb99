"""How an attack is judged: its images must be legal, and a classifier says which of them fool it.

No library is asked whether it succeeded.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from sparring.adapters import arrays
from sparring.adapters.attacks.distances import distances, project
from sparring.adapters.attacks.library import Library
from sparring.adapters.attacks.request import Request
from sparring.adapters.errors import LibraryError
from sparring.adapters.protocol import Classifier, Images, Labels, Logits


def legal(library: Library, request: Request, x: Images, result: Any, bounded: bool = True) -> tuple[Images, list[str]]:
    """The library's images in the box and within the budget, and a note where they had to be moved there.

    ``x`` are the images before the attack. Without ``bounded`` the images need not lie in the box, and stay where they
    are. Raises ``LibraryError`` for a result that is not finite images of the shape of ``x``.
    """
    if not isinstance(result, np.ndarray) or result.shape != x.shape:
        kind = f"{result.shape}" if isinstance(result, np.ndarray) else type(result).__name__
        raise LibraryError(f"{library.name} returned {kind}, not images of shape {x.shape}")
    bad = ~np.isfinite(result).all(axis=(1, 2, 3))
    if bad.any():
        raise LibraryError(f"{library.name} returned NaN or infinity in {bad.sum()} of {len(x)} images")
    if not bounded:
        return result.astype(np.float32, copy=False), []
    images = np.clip(result, 0, 1).astype(np.float32, copy=False)
    if request.eps is None or request.norm not in ("linf", "l2"):
        return images, []
    if request.canonical is not None and request.canonical.goal != "budget":
        return images, []
    projection, outside, excess = project(x, images, request.norm, request.eps)
    if not outside.any():
        return projection, []
    return projection, [f"{library.name} left the budget by up to {excess:.2g}: such images were moved back"]


class Judge:
    """Keeps a classifier's logits of the images before and after an attack, batch by batch."""

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier
        self.seconds = 0.0
        """the time that the logits after the attack took"""
        self._before: list[Logits] = []
        self._after: list[Logits] = []

    def see_before(self, x: Images) -> None:
        """Take the logits of a batch before the attack."""
        self._before.append(self.classifier.logits(x))

    def see_after(self, x: Images) -> None:
        """Take the logits of the same batch after the attack.

        Batches are the attack's own: DeepFool's images lie on the boundary to within rounding.
        """
        begin = time.perf_counter()
        self._after.append(self.classifier.logits(x))
        self.seconds += time.perf_counter() - begin

    def logits(self) -> tuple[Logits, Logits]:
        """All logits before and after the attack, each (N, classes). Raises ``LibraryError`` for NaN or infinity."""
        return self._joined(self._before), self._joined(self._after)

    def _joined(self, batches: list[Logits]) -> Logits:
        logits = np.concatenate([np.zeros((0, self.classifier.classes), np.float32), *batches])
        if not np.isfinite(logits).all():
            raise LibraryError("the classifier gave NaN or infinite logits")
        return logits


def samples(
    images: Images, adversarial: Images, logits: tuple[Logits, Logits], y: Labels, goals: Labels | None
) -> dict[str, np.ndarray]:
    """Per image, what a score is made of: the columns that ``Attacked`` describes.

    ``logits`` are those before and after the attack. ``goals`` are the classes to reach, and None without any.
    """
    before, after = (each.argmax(axis=1).astype(np.int64) for each in logits)
    return {
        "y": y,
        "target": np.full_like(y, -1) if goals is None else goals,
        "pred_clean": before,
        "pred_adv": after,
        "success": after != y if goals is None else after == goals,
        **_distances(images, adversarial),
    }


def _distances(images: Images, adversarial: Images) -> dict[str, np.ndarray]:
    parts = [distances(*piece) for piece in arrays.pieces(images, adversarial)]
    return {norm: np.concatenate([part[norm] for part in parts]) for norm in parts[0]}
