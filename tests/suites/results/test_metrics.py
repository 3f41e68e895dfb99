"""Scores against scikit-learn's own, of the images and of every resample, and against counting by hand."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn import metrics as sklearn
from sklearn.metrics import confusion_matrix

from sparring.suites.results import bootstrap
from sparring.suites.results.metrics import MACRO, RANKING, RATES, confusion, scores, wilson


def facts(y, clean, adv, target=None, distance=1.0):
    y, clean, adv = (np.asarray(v, np.int64) for v in (y, clean, adv))
    success = adv == target if target is not None else adv != y
    return {
        "y": y,
        "pred_clean": clean,
        "pred_adv": adv,
        "success": success,
        **{norm: np.full(len(y), distance) * np.arange(1, len(y) + 1) for norm in ("l0", "l1", "l2", "linf")},
    }


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


# --- from logits ------------------------------------------------------------------------------------------------------


def drawn(seed=0, n=120, classes=7, absent=0, steps=None, spread=1.5):
    """A cell's arrays with logits that are better than chance before and worse after; ``steps`` makes ties."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes - absent, n)
    logits = {}
    for when, help in (("clean", 2.0), ("adv", 0.5)):
        z = rng.normal(0, spread, (n, classes)) + help * (np.arange(classes) == y[:, None])
        logits[f"logits_{when}"] = (np.round(z * steps) / steps if steps else z).astype(np.float32)
    clean, adv = (logits[f"logits_{when}"].argmax(1) for when in ("clean", "adv"))
    return {**facts(y, clean, adv), **logits}


@pytest.mark.parametrize("case", [{}, {"absent": 3}, {"steps": 2}, {"n": 30, "classes": 10}, {"classes": 2}], ids=str)
def test_scores_of_logits_are_scikit_learns(case):
    samples = drawn(**case)
    found, y = scores(samples), samples["y"]
    present = np.unique(y)
    for when, prefix in (("clean", "clean_"), ("adv", "")):
        p = softmax(samples[f"logits_{when}"].astype(np.float64), axis=1)
        one_by_one = [
            (sklearn.roc_auc_score(y == k, p[:, k]), sklearn.average_precision_score(y == k, p[:, k])) for k in present
        ]
        areas, precisions = zip(*one_by_one, strict=True)
        assert found[f"{prefix}auroc"] == pytest.approx(np.mean(areas), abs=1e-12)
        assert found[f"{prefix}pr_auc"] == pytest.approx(np.mean(precisions), abs=1e-12)
        if len(present) == p.shape[1] > 2:
            assert found[f"{prefix}auroc"] == pytest.approx(sklearn.roc_auc_score(y, p, multi_class="ovr"), abs=1e-12)
        if p.shape[1] > 5:
            top = sklearn.top_k_accuracy_score(y, samples[f"logits_{when}"], k=5, labels=np.arange(p.shape[1]))
            assert found[f"{prefix}top5"] == pytest.approx(top)
        macro = sklearn.precision_recall_fscore_support(
            y, p.argmax(1), labels=present, average="macro", zero_division=0
        )
        assert [found[prefix + key] for key in MACRO] == pytest.approx(macro[:3])


@pytest.mark.parametrize(
    "case", [{"n": 25, "classes": 4}, {"n": 40, "classes": 6, "steps": 1}, {"n": 9, "classes": 3}], ids=str
)
def test_every_resample_is_scored_as_scikit_learn_scores_it(case):
    samples = drawn(**case)
    y, pred = samples["y"], samples["pred_adv"]
    p = softmax(samples["logits_adv"].astype(np.float64), axis=1)
    w = bootstrap.weights(len(y))
    assert (w.sum(0) == len(y)).all()
    ours = bootstrap.decisions(y, pred, w) | bootstrap.rankings(y, p, w)
    for b in range(60):
        rows = np.repeat(np.arange(len(y)), w[:, b].astype(int))
        classes = np.unique(y[rows])
        macro = sklearn.precision_recall_fscore_support(
            y[rows], pred[rows], labels=classes, average="macro", zero_division=0
        )
        assert [ours[key][b] for key in MACRO] == pytest.approx(macro[:3], abs=1e-6)
        onehot = y[rows, None] == classes
        for key, of in (("auroc", sklearn.roc_auc_score), ("pr_auc", sklearn.average_precision_score)):
            expected = of(onehot, p[rows][:, classes], average="macro") if len(classes) > 1 else np.nan
            assert ours[key][b] == pytest.approx(expected, abs=1e-6, nan_ok=True), (key, b)


@given(st.integers(0, 10**6), st.integers(2, 60), st.integers(2, 8), st.sampled_from([None, 1, 3]))
def test_an_interval_holds_its_rate_and_lies_in_the_unit(seed, n, classes, steps):
    found = scores(drawn(seed, n, classes, steps=steps))
    rates = ["robust_accuracy", "clean_accuracy", "attack_success_rate"]
    rates += [prefix + key for prefix in ("", "clean_") for key in (*MACRO, *RANKING, "top5")]
    for key in (*rates, *(f"drop_{key}" for key in RATES)):
        low, value, high = (found[key + end] for end in ("_low", "", "_high"))
        assert np.isnan([low, value, high]).all() or low <= value <= high, key
        least = -1 if key.startswith("drop_") else 0
        assert np.isnan(value) or least <= low <= high <= 1, key
    for key in RATES:
        after = {"accuracy": "robust_accuracy"}.get(key, key)
        assert found[f"drop_{key}"] == pytest.approx(found[f"clean_{key}"] - found[after], nan_ok=True)


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.permutations(range(6)))
def test_scores_do_not_depend_on_how_classes_are_numbered(seed, order):
    samples = drawn(seed, 40, 6)
    order = np.array(order)
    renamed = {**samples, **{key: order[samples[key]] for key in ("y", "pred_clean", "pred_adv")}}
    for key in ("logits_clean", "logits_adv"):
        renamed[key] = np.empty_like(samples[key])
        renamed[key][:, order] = samples[key]
    assert scores(renamed) == pytest.approx(scores(samples), nan_ok=True, abs=1e-9)


def test_an_interval_holds_the_true_score_as_often_as_it_says():
    """Of the population that the images are drawn from; average precision is biased in small samples, and must be too."""
    many = scores(drawn(10**6, 20000, 4))
    fresh = {key: [] for key in (*MACRO, *RANKING, "drop_f1", "drop_auroc", "drop_pr_auc", "robust_accuracy")}
    for seed in range(100):
        found = scores(drawn(seed, 150, 4))
        for key, values in fresh.items():
            values.append([found[key + end] for end in ("_low", "", "_high")])
    for key, values in fresh.items():
        low, value, high = np.array(values).T
        assert 0.9 <= np.mean((low <= many[key]) & (many[key] <= high)) <= 0.99, key
        # neither is it wider than the scores of new samples scatter
        assert 0.8 < (high - low).mean() / (2 * 1.96 * value.std()) < 1.25, key


def test_a_drop_is_paired():
    samples = drawn(3, 200, 5)
    same = {**samples, "pred_adv": samples["pred_clean"], "logits_adv": samples["logits_clean"]}
    found = scores(same)
    for key in (*MACRO, *RANKING):
        assert (found[f"drop_{key}_low"], found[f"drop_{key}_high"]) == (0, 0), key
    assert found["drop_accuracy"] == 0


def test_what_is_not_defined_is_nan():
    plain = drawn(0, 30, 4)
    without = scores({key: value for key, value in plain.items() if not key.startswith("logits")})
    one_class = scores({**plain, "y": np.zeros(30, np.int64)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        infinite = scores({**plain, "logits_adv": np.full((30, 4), np.inf, np.float32)})
    for found, prefixes in (
        (without, ("", "clean_", "drop_")),
        (one_class, ("", "clean_", "drop_")),
        (infinite, ("", "drop_")),
    ):
        for key in RANKING:
            assert all(np.isnan(found[f"{prefix}{key}{end}"]) for prefix in prefixes for end in ("", "_low", "_high"))
        assert not any(np.isnan(found[key]) for key in (*MACRO, "clean_f1", "drop_f1", "robust_accuracy"))
    assert np.isnan(scores(plain)["top5"])  # of four classes
    assert not np.isnan(scores(drawn(0, 30, 6))["top5"])


def test_probabilities_are_not_softened_again():
    samples = drawn(1, 80, 4)
    given = {**samples, **{key: softmax(samples[key], axis=1) for key in ("logits_clean", "logits_adv")}}
    assert scores(given)["auroc"] == pytest.approx(scores(samples)["auroc"], abs=1e-6)


def test_nobody_right_before_leaves_the_success_rate_open():
    found = scores(facts([0, 1], [1, 0], [1, 0]))
    assert [found[f"attack_success_rate{end}"] for end in ("", "_low", "_high")] == [0, 0, 1]
    assert (found["clean_accuracy_low"], found["clean_accuracy_high"]) == wilson(0, 2)


def test_times_are_per_image():
    found = scores(drawn(n=40), {"seconds": 8.0, "prediction_seconds": 0.2})
    assert found["seconds_per_image"] == pytest.approx(0.2)
    assert found["prediction_seconds_per_image"] == pytest.approx(0.005)
    assert np.isnan(scores(drawn(n=40))["seconds_per_image"])


def test_a_confusion_matrix_has_every_class():
    matrix = confusion(np.array([0, 0, 2]), np.array([0, 2, 2]), 4)
    assert matrix.tolist() == [[1, 0, 1, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]


def test_the_same_twice():
    cell = drawn(4, 50, 10)
    first = scores(cell)
    for seed in range(10):  # what was kept of it is forgotten
        scores(drawn(seed + 10, 20, 4))
    assert scores(cell) == pytest.approx(first, abs=0, nan_ok=True)
