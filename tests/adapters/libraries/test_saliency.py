"""The fast search for JSMA's pair against the search through all pairs."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sparring.adapters.libraries.saliency import best_pair


def of_all_pairs(alpha, beta, domain):
    """Algorithm 3 of Papernot et al. 2016, pair by pair: the first of the best."""
    a, b = alpha.astype(float), beta.astype(float)
    most, best = 0.0, (-1, -1)
    for p in range(len(a)):
        for q in range(p + 1, len(a)):
            if domain[p] and domain[q] and a[p] + a[q] > 0 and b[p] + b[q] < 0:
                score = -(a[p] + a[q]) * (b[p] + b[q])
                if score > most:
                    most, best = score, (p, q)
    return best


LEVELS = st.sampled_from([-2.0, -1.0, -0.0, 0.0, 0.5, 1.0, 2.0])  # many ties, and products that tie
NEAR = st.sampled_from([np.float32(1), np.nextafter(np.float32(1), np.float32(2)), np.float32(1e-8), np.float32(-1e-8)])
ANY = st.floats(-4, 4, width=32, allow_subnormal=False)
DERIVATIVES = st.sampled_from([LEVELS, NEAR, ANY, LEVELS | NEAR | ANY]).flatmap(
    lambda elements: st.integers(0, 14).flatmap(
        lambda n: st.tuples(*[arrays(np.float32, n, elements=elements)] * 2, arrays(bool, n))
    )
)


@given(DERIVATIVES)
@example((np.ones(5, np.float32), -np.ones(5, np.float32), np.ones(5, bool)))  # all pairs are equal: the first
@example((np.zeros(5, np.float32), -np.ones(5, np.float32), np.ones(5, bool)))  # none counts
def test_it_is_the_pair_of_the_search_through_all(derivatives):
    alpha, beta, domain = derivatives
    assert best_pair(alpha, beta, domain) == of_all_pairs(alpha, beta, domain)
    assert best_pair(-alpha, -beta, domain) == of_all_pairs(-alpha, -beta, domain)  # theta below 0


@pytest.mark.parametrize("correlation", [-1.0, -0.9, 0.0, 0.9, 1.0])
def test_it_is_the_best_of_many_features(correlation):
    rng = np.random.default_rng(0)
    for _ in range(5):
        alpha = rng.normal(size=300).astype(np.float32)
        noise = np.sqrt(1 - correlation**2) * rng.normal(size=300)
        beta = (correlation * alpha + noise).astype(np.float32)
        domain = rng.random(300) < 0.9
        assert best_pair(alpha, beta, domain) == of_all_pairs(alpha, beta, domain)


def test_where_no_feature_surpasses_another_it_looks_at_all_pairs_in_parts():
    alpha = np.random.default_rng(0).normal(size=2500).astype(np.float32)
    beta = alpha - np.float32(0.01)
    p, q = best_pair(alpha, beta, np.ones(2500, bool))
    a, b = alpha.astype(float), beta.astype(float)
    sums_a, sums_b = a[:, None] + a, b[:, None] + b
    scores = np.triu(np.where((sums_a > 0) & (sums_b < 0), -sums_a * sums_b, 0), 1)
    assert (p, q) == divmod(int(scores.argmax()), 2500)


@pytest.mark.parametrize("alike", ["neither", "alpha", "beta", "both"])
def test_a_picture_of_imagenet_takes_no_table_of_all_pairs(alike):
    """Of 150,528 features, some or all with the same derivative; all pairs would be 180 GB."""
    rng = np.random.default_rng(0)
    n = 3 * 224 * 224
    alpha, beta = rng.normal(size=(2, n)).astype(np.float32)
    alpha = np.ones_like(alpha) if alike in ("alpha", "both") else alpha
    beta = -np.ones_like(beta) if alike in ("beta", "both") else beta
    tracemalloc.start()
    p, q = best_pair(alpha, beta, np.ones(n, bool))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 60 * 8 * n
    if alike == "both":
        assert (p, q) == (0, 1)
    elif alike != "neither":
        steepest = alpha if alike == "beta" else -beta
        assert {p, q} == set(np.argsort(-steepest, kind="stable")[:2])
