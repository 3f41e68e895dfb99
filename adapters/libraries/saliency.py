"""The pair of features that JSMA takes: the best of all n(n - 1) / 2, without looking at each.

Papernot et al. 2016, "The Limitations of Deep Learning in Adversarial Settings", algorithm 3.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Features = npt.NDArray[np.int64]

MARGIN = 16 * float(np.finfo(np.float64).eps)
"""As a share of the largest value: two values differ by that much if their rounded sums and products differ surely."""

SCORES = 1 << 20
"""The number of pairs in one step of the search: where no feature surpasses another, all pairs remain."""


def best_pair(alpha: npt.NDArray[Any], beta: npt.NDArray[Any], domain: npt.NDArray[np.bool_]) -> tuple[int, int]:
    """The features p < q of the domain with the largest -(alpha_p + alpha_q) (beta_p + beta_q), or -1, -1.

    ``alpha``, ``beta`` (features,), of float32 precision: the derivatives of the target's logit and of all others
    together, both with the other sign where theta is below 0. ``domain`` (features,). A pair counts if the first sum is
    above 0 and the second below. The products are float64. Of equal pairs the first is taken, in the order (0, 1),
    (0, 2), ..., (1, 2), ... A search through all pairs has the same result; this takes O(n log n) if few values are
    equal.

    With c = -beta the product grows in alpha and in c. If another feature surpasses one of the best pair in both, it
    could replace it, unless it is the other one of the pair. So features that two others surpass are left out.
    """
    a, c = alpha.astype(np.float64), -beta.astype(np.float64)
    features = _seldom_surpassed(np.flatnonzero(domain), a, c)
    features = np.sort(_seldom_surpassed(features, c, a))
    a, c = a[features], c[features]
    most, best = 0.0, (-1, -1)
    rows = max(1, SCORES // max(len(features), 1))
    for start in range(0, len(features), rows):
        sums_a, sums_c = a[start : start + rows, None] + a, c[start : start + rows, None] + c
        scores = np.triu(np.where((sums_a > 0) & (sums_c > 0), sums_a * sums_c, 0), start + 1)
        p, q = divmod(int(scores.argmax()), len(features))
        if scores[p, q] > most:
            most, best = scores[p, q], (int(features[start + p]), int(features[q]))
    return best


def _seldom_surpassed(features: Features, first: Array, second: Array) -> Features:
    """The features without those that two others surpass: by a larger ``second`` and as large a ``first``, or by a tie.

    Sorted by ``first``, those are the features whose ``second`` lies below the second largest before them.
    """
    order = features[np.lexsort((-second[features], -first[features]))]  # stable: of equal ones the first stays first
    u, v = first[order], second[order]
    mask = np.ones(len(order), bool)
    second_largest = np.maximum.accumulate(np.minimum(v[1:-1], np.maximum.accumulate(v[:-2])))
    mask[2:] = v[2:] >= second_largest - MARGIN * np.abs(v).max(initial=0)
    mask[2:] &= (u[2:] != u[:-2]) | (v[2:] != v[:-2])
    return order[mask]
