"""Macro scores of many resamples of one set of images at once: basic intervals (Davison, Hinkley 1997, section 5.2).

A resample of n images with replacement is how often each is drawn: a column of weights. Every score follows from
weighted counts, so that no resample is ever sorted or counted by itself. Each is what scikit-learn gives of the images
drawn, averaged over the classes that are among them.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

RESAMPLES = 400

Floats = npt.NDArray[np.float64]
Weights = npt.NDArray[np.float32]
"""float32, (n, resamples): how often each image is in each resample; whole numbers, exact up to 2 ** 24"""


@lru_cache(maxsize=4)
def weights(n: int) -> Weights:
    """The resamples of n images: the same ones every time, so that scores of the same images are paired."""
    drawn = np.random.default_rng(0).integers(0, n, (RESAMPLES, n))
    flat = (drawn + n * np.arange(RESAMPLES)[:, None]).ravel()
    counts = np.bincount(flat, minlength=RESAMPLES * n).reshape(RESAMPLES, n)
    return np.ascontiguousarray(counts.T, np.float32)


def decisions(y: npt.NDArray[np.int64], pred: npt.NDArray[np.int64], w: Weights) -> dict[str, Floats]:
    """Macro ``precision``, ``recall`` and ``f1``, (resamples,), over the classes of y that are drawn."""
    classes = np.unique(y)
    true, decided = ((each[None] == classes[:, None]).astype(np.float32) for each in (y, pred))
    support, predicted, hits = (one.astype(np.float64) @ w for one in (true, decided, true * decided))
    with np.errstate(invalid="ignore"):
        precision, recall, f1 = (
            a / b for a, b in ((hits, predicted), (hits, support), (2 * hits, predicted + support))
        )
    there = support > 0
    # a class that is never predicted has no precision: 0, as for scikit-learn with zero_division=0
    precision = np.where(predicted > 0, precision, 0.0)
    named = {"precision": precision, "recall": recall, "f1": f1}
    return {key: np.where(there, value, 0).sum(0) / there.sum(0) for key, value in named.items()}


def rankings(y: npt.NDArray[np.int64], probabilities: Floats, w: Weights) -> dict[str, Floats]:
    """Macro one-vs-rest ``auroc`` and ``pr_auc`` (average precision), (resamples,), over the classes drawn.

    ``probabilities`` is (n, classes). NaN in a resample that holds one class alone.
    """
    drawn, total = np.zeros(w.shape[1]), w.sum(0, dtype=np.float64)
    areas, precisions = np.zeros_like(drawn), np.zeros_like(drawn)
    for k in np.unique(y):
        area, precision, there = _one_vs_rest(y == k, probabilities[:, k], w, total)
        drawn, areas, precisions = drawn + there, areas + area, precisions + precision
    with np.errstate(invalid="ignore"):
        several = np.where(drawn > 1, drawn, np.nan)
        return {"auroc": areas / several, "pr_auc": precisions / several}


def _one_vs_rest(
    positive: npt.NDArray[np.bool_], score: Floats, w: Weights, total: Floats
) -> tuple[Floats, Floats, npt.NDArray[np.bool_]]:
    """Area and average precision of one class, 0 where the resample lacks it, and whether it has it."""
    order = np.argsort(-score, kind="stable")
    score, positive = score[order], positive[order]
    n, places = len(score), np.flatnonzero(positive)
    new = np.flatnonzero(np.diff(score, prepend=np.nan) != 0)  # where a group of equal scores begins
    group = np.searchsorted(new, places, side="right") - 1
    first, last = new[group], np.append(new, n)[group + 1]
    above = np.zeros((n + 1, w.shape[1]), np.float32)  # images of the i highest scores
    np.cumsum(w[order], axis=0, out=above[1:])
    own = w[order[places]]
    hits = np.zeros((len(places) + 1, w.shape[1]), np.float32)
    np.cumsum(own, axis=0, out=hits[1:])
    before, until = hits[np.searchsorted(places, first)], hits[np.searchsorted(places, last)]
    counted = above[last]
    count = hits[-1].astype(np.float64)
    rest = total - count
    beaten = rest - 0.5 * ((above[first] - before) + (counted - until))  # a tie is half a victory
    there = (count > 0) & (rest > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(counted > 0, until / counted, 0)
        area = (own * beaten).sum(0, dtype=np.float64) / (count * rest)
        average = (own * precision).sum(0, dtype=np.float64) / count
    return np.where(there, area, 0), np.where(there, average, 0), there


def interval(value: float, draws: Floats, least: float = 0.0) -> tuple[float, float]:
    """The 95 % basic interval of a score in [``least``, 1]: how far the resamples lie from it, to the other side.

    Average precision is too high in small samples, and as much higher again in their resamples: percentiles of these
    hold the true one in few of a hundred cases, this interval in 95. It is widened to hold the value itself; NaN where
    there is no value.
    """
    kept = draws[np.isfinite(draws)]
    if not len(kept) or np.isnan(value):
        return float("nan"), float("nan")
    low, high = 2 * value - np.percentile(kept, [97.5, 2.5])
    return min(max(float(low), least), value), max(min(float(high), 1.0), value)
