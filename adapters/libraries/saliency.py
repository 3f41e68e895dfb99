"""The pair of features that JSMA takes, found among all n(n - 1) / 2 of them by looking at few.

Papernot et al. 2016, "The Limitations of Deep Learning in Adversarial Settings", algorithm 3.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Features = npt.NDArray[np.int64]

MARGIN = 16 * float(np.finfo(np.float64).eps)
"""Of the largest value: what two values must differ by for sums and products made of them to differ once rounded."""

SCORES = 1 << 20
"""How many pairs are looked at in one go: where no feature surpasses another, all are left."""


def best_pair(alpha: npt.NDArray[Any], beta: npt.NDArray[Any], domain: npt.NDArray[np.bool_]) -> tuple[int, int]:
    """The features p < q of the domain with the largest -(alpha_p + alpha_q) (beta_p + beta_q), or -1, -1.

    ``alpha``, ``beta`` (features,), of float32 precision: the derivatives of the target's logit and of all others
    together, both with the other sign where theta is below 0. ``domain`` (features,). A pair counts where the first sum
    is above 0 and the second below. Of equal pairs the first is taken, in the order (0, 1), (0, 2), ..., (1, 2), ...;
    the products are float64. It is what the search through all pairs finds, in O(n log n) where few values are equal.

    With c = -beta the product grows in alpha and in c. A feature of the best pair that another one surpasses in both
    could be replaced by it, unless that is the pair's other member: so features that two others surpass are left out.
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
    """Without those for which there are two with as large a ``first`` and a larger ``second``, or with both the same.

    Sorted by ``first``, these are the ones whose ``second`` lies below the second largest before them.
    """
    order = features[np.lexsort((-second[features], -first[features]))]  # stable: of equal ones the first stays first
    u, v = first[order], second[order]
    kept = np.ones(len(order), bool)
    before = np.maximum.accumulate(np.minimum(v[1:-1], np.maximum.accumulate(v[:-2])))
    kept[2:] = v[2:] >= before - MARGIN * np.abs(v).max(initial=0)
    kept[2:] &= (u[2:] != u[:-2]) | (v[2:] != v[:-2])
    return order[kept]
