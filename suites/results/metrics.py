"""Scores of a cell from its facts per sample."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from sparring.adapters.attacks.distances import NORMS
from sparring.adapters.wrap import look_like_probabilities
from sparring.suites.results import bootstrap


def wilson(hits: int, n: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of a rate (Wilson 1927); (0, 1) when there is nothing to count."""
    from scipy.stats import binomtest

    if n == 0:
        return 0.0, 1.0
    interval = binomtest(hits, n).proportion_ci(confidence_level=0.95, method="wilson")
    # rounding may leave the rate itself a hair outside at 0 and at 1
    return min(float(interval.low), hits / n), max(float(interval.high), hits / n)


MACRO = ("precision", "recall", "f1")
RANKING = ("auroc", "pr_auc")
TOP = 5
"""``top5`` asks whether the true class is among so many."""
AIMED = ("target_top1", "target_top5")
"""The rates of targeted attacks."""
RATES = ("accuracy", *MACRO, *RANKING, "top5")
"""Each has three values: before the attack, after it, and the drop between them."""
NOTHING = float("nan")


def scores(samples: Mapping[str, np.ndarray], facts: Mapping[str, Any] | None = None) -> dict[str, float]:
    """The measures of a finished cell, by the names of their columns; NaN where one is not defined.

    ``clean_accuracy`` and ``robust_accuracy``: share of all images classified as y before and after the attack.
    ``attack_success_rate``: of the images classified correctly before, those that are misclassified after (of a
    targeted attack: classified as the target). ``target_top1``, ``target_top5``: of a targeted attack, share of the
    images of other classes that are classified as the target after it, and that have it among the five most probable
    (NaN where there are at most five classes, or no logits). Macro ``precision``, ``recall`` and ``f1`` of the
    decisions after the attack, over the classes of y, 0 for a class that is never predicted. From ``logits_adv``,
    where there are any: macro ``auroc`` (one class against the rest) and ``pr_auc`` (average precision) of the softmax
    over the classes of y, NaN where that is one class; ``top5``, NaN where there are at most five classes. The same of
    the clean images with ``clean_`` in front, and ``drop_`` for clean minus attacked. All of these from scikit-learn.

    Each has a 95 % interval, ``_low`` and ``_high``: Wilson's of shares (Wilson 1927), the basic bootstrap's of
    the others (``bootstrap.py``), in which the drops are paired; of the drops in accuracy and in ``top5`` Agresti and
    Min's (2005).

    Mean and median of each distance over the successful among the images that were right before (NaN when there is
    none). ``seconds_per_image`` of the attack and ``prediction_seconds_per_image`` from the ``facts`` ``seconds`` and
    ``prediction_seconds``, which are of all n.
    """
    y, clean, adv = samples["y"], samples["pred_clean"], samples["pred_adv"]
    n = len(y)
    correct, withstood = clean == y, adv == y
    hit = correct & samples["success"]
    measures = {"n": float(n)}
    measures |= _share("clean_accuracy", correct) | _share("robust_accuracy", withstood)
    measures |= _share("attack_success_rate", hit[correct]) | _drop("accuracy", correct, withstood)
    measures |= _aimed(samples)
    before, after = (_quality(y, samples[f"pred_{when}"], samples.get(f"logits_{when}")) for when in ("clean", "adv"))
    for key in (*MACRO, *RANKING):
        (value, draws), (value_after, draws_after) = before[key], after[key]
        measures |= _bounded(f"clean_{key}", value, draws) | _bounded(key, value_after, draws_after)
        measures |= _bounded(f"drop_{key}", value - value_after, draws - draws_after, least=-1.0)
    tops = [_in_top(y, samples.get(f"logits_{when}")) for when in ("clean", "adv")]
    measures |= _share("clean_top5", tops[0]) | _share("top5", tops[1]) | _drop("top5", *tops)
    for norm in NORMS:
        values = samples[norm][hit]
        measures[f"{norm}_mean"] = float(values.mean()) if len(values) else NOTHING
        measures[f"{norm}_median"] = float(np.median(values)) if len(values) else NOTHING
    for name, fact in (("seconds_per_image", "seconds"), ("prediction_seconds_per_image", "prediction_seconds")):
        duration = (facts or {}).get(fact)
        measures[name] = NOTHING if duration is None or not n else float(duration) / n
    return measures


def confusion(y: np.ndarray, pred: np.ndarray, classes: int) -> np.ndarray:
    """int64, (classes, classes): how many images of each class (rows) were taken for each (columns)."""
    from sklearn.metrics import confusion_matrix

    matrix: np.ndarray = confusion_matrix(y, pred, labels=np.arange(classes))
    return matrix


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities, float64, (n, classes), of logits. Rows that are probabilities already stay as they are."""
    from scipy.special import softmax as of

    wide = np.asarray(logits, np.float64)
    probabilities: np.ndarray = wide if look_like_probabilities(logits) else of(wide, axis=1)
    return probabilities


_Drawn = tuple[float, bootstrap.Floats]
"""A value, and its values in the resamples."""


def _quality(y: np.ndarray, pred: np.ndarray, logits: np.ndarray | None) -> dict[str, _Drawn]:
    scored = None if logits is None or not np.isfinite(logits).all() else np.ascontiguousarray(logits, np.float32)
    shape = None if scored is None else scored.shape
    # the rows of a model share what it says of the clean images
    return _cached_quality(
        y.tobytes(), pred.astype(np.int64).tobytes(), b"" if scored is None else scored.tobytes(), shape
    )


@lru_cache(maxsize=8)
def _cached_quality(labels: bytes, decided: bytes, logits: bytes, shape: tuple[int, int] | None) -> dict[str, _Drawn]:
    from sklearn.metrics import average_precision_score, precision_recall_fscore_support, roc_auc_score

    y, pred = np.frombuffer(labels, np.int64), np.frombuffer(decided, np.int64)
    classes, w = np.unique(y), bootstrap.weights(len(y))
    values = precision_recall_fscore_support(y, pred, labels=classes, average="macro", zero_division=0.0)[:3]
    drawn = bootstrap.decisions(y, pred, w)
    quality: dict[str, _Drawn] = {key: (float(value), drawn[key]) for key, value in zip(MACRO, values, strict=True)}
    if shape is None or len(classes) < 2:
        return quality | {key: (NOTHING, np.full(w.shape[1], NOTHING)) for key in RANKING}
    probabilities = softmax(np.frombuffer(logits, np.float32).reshape(shape))
    onehot = y[:, None] == classes
    values = [of(onehot, probabilities[:, classes], average="macro") for of in (roc_auc_score, average_precision_score)]
    drawn = bootstrap.rankings(y, probabilities, w)
    return quality | {key: (float(value), drawn[key]) for key, value in zip(RANKING, values, strict=True)}


def _in_top(y: np.ndarray, logits: np.ndarray | None) -> np.ndarray | None:
    """Whether the true class is among the five most probable, (n,). In a tie the later class wins (scikit-learn)."""
    if logits is None or logits.shape[1] <= TOP or not np.isfinite(logits).all():
        return None
    best = np.argsort(logits, axis=1, kind="stable")[:, -TOP:]
    hits: np.ndarray = (best == y[:, None]).any(axis=1)
    return hits


def _aimed(samples: Mapping[str, np.ndarray]) -> dict[str, float]:
    target = samples.get("target")
    if target is None or not len(target) or (target < 0).any():
        return _share(AIMED[0], None) | _share(AIMED[1], None)
    others = target != samples["y"]
    top = _in_top(target, samples.get("logits_adv"))
    hits = (samples["pred_adv"] == target)[others]
    return _share(AIMED[0], hits) | _share(AIMED[1], None if top is None else top[others])


def _share(name: str, hits: np.ndarray | None) -> dict[str, float]:
    """A share with its Wilson interval. The share of no images is 0, with the interval from 0 to 1."""
    if hits is None:
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"), NOTHING)
    low, high = wilson(int(hits.sum()), len(hits))
    return {name: float(hits.sum() / max(1, len(hits))), f"{name}_low": low, f"{name}_high": high}


def _drop(name: str, before: np.ndarray | None, after: np.ndarray | None) -> dict[str, float]:
    keys = (f"drop_{name}", f"drop_{name}_low", f"drop_{name}_high")
    if before is None or after is None:
        return dict.fromkeys(keys, NOTHING)
    value, low, high = paired_difference(after, before)
    return dict(zip(keys, (value, min(low, value), max(high, value)), strict=True))


def _bounded(name: str, value: float, draws: bootstrap.Floats, least: float = 0.0) -> dict[str, float]:
    low, high = bootstrap.interval(value, draws, least)
    return {name: value, f"{name}_low": low, f"{name}_high": high}


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
