"""Scores of a cell from its facts per sample."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sparring.adapters.distances import NORMS


def wilson(hits: int, n: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of a rate (Wilson 1927); (0, 1) when there is nothing to count."""
    from scipy.stats import binomtest

    if n == 0:
        return 0.0, 1.0
    interval = binomtest(hits, n).proportion_ci(confidence_level=0.95, method="wilson")
    # rounding may leave the rate itself a hair outside at 0 and at 1
    return min(float(interval.low), hits / n), max(float(interval.high), hits / n)


def scores(samples: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Everything that a row says of a finished cell.

    ``clean_accuracy`` and ``robust_accuracy``: share of all images classified as y before and after the attack, the
    latter with its Wilson interval. ``attack_success_rate``: of the images classified correctly before, those that are
    misclassified after (of a targeted attack: classified as the target). Macro ``precision``, ``recall`` and ``f1`` of
    the decisions after the attack (scikit-learn, over the classes of y). Mean and median of each distance over the
    successful among those images (NaN when there is none).
    """
    from sklearn.metrics import precision_recall_fscore_support

    y, clean, adv = samples["y"], samples["pred_clean"], samples["pred_adv"]
    n = len(y)
    correct = clean == y
    hit = correct & samples["success"]
    robust = int((adv == y).sum())
    low, high = wilson(robust, n)
    precision, recall, f1, _ = precision_recall_fscore_support(
        y, adv, labels=np.unique(y), average="macro", zero_division=0.0
    )
    found = {
        "n": float(n),
        "clean_accuracy": float(correct.mean()),
        "robust_accuracy": robust / n,
        "robust_accuracy_low": low,
        "robust_accuracy_high": high,
        "attack_success_rate": float(hit.sum() / max(1, correct.sum())),
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(f1),
    }
    for norm in NORMS:
        values = samples[norm][hit]
        found[f"{norm}_mean"] = float(values.mean()) if len(values) else float("nan")
        found[f"{norm}_median"] = float(np.median(values)) if len(values) else float("nan")
    return found


def mcnemar(a: np.ndarray, b: np.ndarray) -> float:
    """Exact two-sided p-value of McNemar's paired test (1947) that two rates are the same; ``a``, ``b``: bool, (N,)."""
    from scipy.stats import binomtest

    only_a, only_b = int((a & ~b).sum()), int((~a & b).sum())
    return float(binomtest(only_a, only_a + only_b, 0.5).pvalue) if only_a + only_b else 1.0


def paired_difference(a: np.ndarray, b: np.ndarray) -> tuple[float, float, float]:
    """rate(b) - rate(a) of the same samples, and its 95 % interval; ``a``, ``b``: bool, (N,).

    Agresti, Min 2005: half a sample more in each of the four cells. (0, -1, 1) when there is nothing to count.
    """
    if not len(a):
        return 0.0, -1.0, 1.0
    n = len(a) + 2
    gained, lost = (~a & b).sum() + 0.5, (a & ~b).sum() + 0.5
    middle = (gained - lost) / n
    half = 1.959964 * np.sqrt((gained + lost) - (gained - lost) ** 2 / n) / n
    return float(b.mean() - a.mean()), max(-1.0, float(middle - half)), min(1.0, float(middle + half))
