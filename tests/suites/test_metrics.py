"""Scores against scikit-learn's own confusion matrix and against counting by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix

from sparring.suites.metrics import scores, wilson


def facts(y, clean, adv, target=None, distance=1.0):
    y, clean, adv = (np.asarray(v, np.int64) for v in (y, clean, adv))
    success = adv == target if target is not None else adv != y
    return {"y": y, "pred_clean": clean, "pred_adv": adv, "success": success,
            **{norm: np.full(len(y), distance) * np.arange(1, len(y) + 1) for norm in ("l0", "l1", "l2", "linf")}}  # fmt: skip


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_wilson_interval_solves_its_own_equation_and_holds_the_rate(case):
    hits, n = case
    low, high = wilson(hits, n)
    rate, z = hits / n, 1.959963984540054
    assert 0 <= low <= rate <= high <= 1
    for bound in (low, high):  # Wilson 1927: |rate - p| = z sqrt(p (1 - p) / n), unless it is the rate itself
        if 0 < bound < 1 and bound != rate:
            assert abs(rate - bound) == pytest.approx(z * np.sqrt(bound * (1 - bound) / n), rel=1e-9)


def test_nothing_to_count_is_no_knowledge():
    assert wilson(0, 0) == (0.0, 1.0)


@given(st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=60))
def test_rates_are_counts_of_the_predictions(rows):
    y, clean, adv = (np.array(column) for column in zip(*rows, strict=True))
    found = scores(facts(y, clean, adv))
    assert found["clean_accuracy"] == pytest.approx(np.mean(y == clean))
    assert found["robust_accuracy"] == pytest.approx(np.mean(y == adv))
    hits = sum(c == t and a != t for t, c, a in rows)
    assert found["attack_success_rate"] == pytest.approx(hits / max(1, int((y == clean).sum())))


def test_macro_scores_are_those_of_the_confusion_matrix():
    rng = np.random.default_rng(0)
    y, adv = rng.integers(0, 5, 300), rng.integers(0, 5, 300)
    matrix = confusion_matrix(y, adv)
    precision, recall = np.diag(matrix) / matrix.sum(0), np.diag(matrix) / matrix.sum(1)
    found = scores(facts(y, y, adv))
    assert found["precision"] == pytest.approx(precision.mean())
    assert found["recall"] == pytest.approx(recall.mean())
    assert found["f1"] == pytest.approx((2 * precision * recall / (precision + recall)).mean())


def test_distances_are_of_the_successful_that_were_right_before():
    #            hit  robust  wrong before  hit
    found = scores(facts([0, 1, 2, 3], [0, 1, 0, 3], [9, 1, 9, 9]))
    assert found["l2_mean"] == pytest.approx((1 + 4) / 2)
    assert found["l2_median"] == pytest.approx(2.5)
    none = scores(facts([0], [0], [0]))
    assert np.isnan(none["l2_mean"])
    assert none["attack_success_rate"] == 0


def test_a_targeted_attack_succeeds_only_at_its_target():
    y, clean = [0, 1, 2], [0, 1, 2]
    found = scores(facts(y, clean, [5, 6, 2], target=5))
    assert found["attack_success_rate"] == pytest.approx(1 / 3)
    assert found["robust_accuracy"] == pytest.approx(1 / 3)
