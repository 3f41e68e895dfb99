"""Two results of the same attack on the same images, compared sample by sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sparring.suites.results.metrics import mcnemar, paired_difference


@dataclass(frozen=True)
class Compared:
    """How two parties' images of the same attack differ, over all n images of all seeds.

    Pixels: ``max_abs_diff``, ``mean_abs_diff`` and ``pixels_differing`` (a share) are over the pixels that have a
    gradient. ``pixels_flat`` is the share of the others: their gradient is zero within rounding, so that its sign is
    noise. ``max_abs_diff_flat`` is the largest difference of those. ``images_differing`` is the share of images with a
    difference above ``IMAGES`` in a pixel that has a gradient.

    Decisions: ``label_agreement`` is the share of images that the classifier puts into the same class. ``success_a``
    and ``success_b`` are attack success rates over all images. ``success_difference`` is b minus a with its 95 %
    interval, ``p_value`` that of McNemar's exact test. ``outcomes_differing`` is the share of images on which just one
    of the two succeeds.

    Distances, in the attack's norm, over the images on which both succeed: ``distance_difference`` is the mean of b
    minus a, ``distance_ratio`` the largest ratio of the two.
    """

    n: int
    max_abs_diff: float
    mean_abs_diff: float
    pixels_differing: float
    pixels_flat: float
    max_abs_diff_flat: float
    images_differing: float
    label_agreement: float
    success_a: float
    success_b: float
    success_difference: float
    success_low: float
    success_high: float
    p_value: float
    distance_a: float
    distance_b: float
    distance_difference: float
    distance_ratio: float
    outcomes_differing: float


IMAGES = 1e-5
"""Two images are the same when no pixel that has a gradient differs by more."""

Arrays = Mapping[str, npt.NDArray[np.generic]]
"""A cell's arrays with its images. ``flat`` (bool, shape of x), if present, marks the pixels without a gradient."""


def compare(a: Sequence[Arrays], b: Sequence[Arrays], norm: str | None) -> Compared:
    """Compare two parties by their cells, one for each seed in the same order. ``norm`` None: distances are l2."""
    largest, largest_flat, total, differing, flat, pixels, images = 0.0, 0.0, 0.0, 0, 0, 0, 0
    for one, other in zip(a, b, strict=True):
        masks = [cell["flat"] for cell in (one, other) if "flat" in cell]
        counts = ~np.logical_or.reduce(masks) if masks else np.ones(one["x_adv"].shape, bool)
        delta = np.abs(one["x_adv"].astype(np.float64) - other["x_adv"].astype(np.float64))
        largest_flat = max(largest_flat, float(delta[~counts].max(initial=0.0)))
        images += int(np.count_nonzero(np.where(counts, delta, 0).max(axis=(1, 2, 3), initial=0) > IMAGES))
        delta = delta[counts]
        largest, total = max(largest, float(delta.max(initial=0.0))), total + float(delta.sum())
        differing, pixels = differing + int(np.count_nonzero(delta)), pixels + int(counts.size)
        flat += int(counts.size - counts.sum())

    def joined(cells: Sequence[Arrays], key: str) -> npt.NDArray[np.generic]:
        return np.concatenate([cell[key] for cell in cells])

    success_a, success_b = joined(a, "success").astype(bool), joined(b, "success").astype(bool)
    difference, low, high = paired_difference(success_a, success_b)
    n = max(len(success_a), 1)
    key = norm if norm in ("l0", "l1", "l2", "linf") else "l2"
    both = success_a & success_b
    far_a, far_b = (joined(cells, key)[both].astype(np.float64) for cells in (a, b))
    counted = pixels - flat
    return Compared(
        n=len(success_a),
        max_abs_diff=largest,
        mean_abs_diff=total / counted if counted else 0.0,
        pixels_differing=differing / counted if counted else 0.0,
        pixels_flat=flat / pixels if pixels else 0.0,
        max_abs_diff_flat=largest_flat,
        images_differing=images / n,
        label_agreement=float((joined(a, "pred_adv") == joined(b, "pred_adv")).sum() / n) if len(success_a) else 1.0,
        success_a=float(success_a.sum() / n),
        success_b=float(success_b.sum() / n),
        success_difference=difference,
        success_low=low,
        success_high=high,
        p_value=mcnemar(success_a, success_b),
        distance_a=float(far_a.mean()) if len(far_a) else float("nan"),
        distance_b=float(far_b.mean()) if len(far_b) else float("nan"),
        distance_difference=float((far_b - far_a).mean()) if len(far_a) else float("nan"),
        distance_ratio=_largest_ratio(far_a, far_b),
        outcomes_differing=float((success_a != success_b).sum() / n),
    )


def _largest_ratio(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    """The largest ratio of the greater to the lesser; 1 where both are zero (within 1e-7) and for empty arrays."""
    low, high = np.minimum(a, b), np.maximum(a, b)
    ratios = np.where(high <= 1e-7, 1.0, high / np.maximum(low, 1e-7))
    return float(ratios.max(initial=1.0))
