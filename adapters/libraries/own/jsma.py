"""The Jacobian-based saliency map attack, for a batch of images at once, in float32 NumPy on gradients.

Papernot et al. 2016, "The Limitations of Deep Learning in Adversarial Settings", algorithms 2 and 3; its two readings,
of logits and of probabilities, are JSMA-Z and JSMA-F of Carlini, Wagner 2017, section VI.D.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from sparring.adapters.errors import InputError, unknown
from sparring.adapters.libraries.saliency import best_pair
from sparring.adapters.protocol import Differentiable, Images, Labels, Logits, Pull, linearized

TURNS = 3
"""The least number of turns: with fewer there is no room to correct earlier changes."""
Features: TypeAlias = npt.NDArray[np.int64]
Domain: TypeAlias = npt.NDArray[np.bool_]
Choose: TypeAlias = Callable[[int, Domain, int], Features]
"""An image's place in the batch, its domain and a number of pairs -> the features of that many best pairs."""


def jsma(
    classifier: Differentiable,
    x: Images,
    y: Labels,
    *,
    targeted: bool,
    theta: float,
    gamma: float,
    outputs: str = "probabilities",
    pairs: int = 3,
) -> Images:
    """Images (N, C, H, W) with pairs of values changed by ``theta`` until they are classified as ``y``.

    The algorithm always moves towards a class: untargeted, that is the one after ``y``. At most features * ``gamma``
    / 2 pairs are changed, rounded down. The search domain are the values that ``theta`` can still change. An image is
    done when it is classified as the goal, or when it has no pair or no turn left.

    ``outputs``: the saliency map consists of their derivatives. With ``logits`` and one pair a turn it is the referee's
    algorithm. The ``probabilities`` sum to 1, so the derivatives of all others together are those of the target with
    the other sign: the best pair are the two largest values, and one gradient is enough. That gradient is taken without
    its factor p (1 - p), which is the same for all features, and 0 for a saturated network. ``pairs``: how many are
    changed in one turn, the best, then the best of the other features, and so on; fewer, where gamma would leave less
    than three turns. The classifier computes logits and gradients together, once a turn for each unfinished image.
    Raises ``InputError`` for other ``outputs``.
    """
    if outputs not in SALIENCY:
        raise InputError(unknown("outputs", outputs, SALIENCY))
    goals = y if targeted else (y + 1) % classifier.classes
    x_adv = x.copy()
    values = x_adv.reshape(len(x), math.prod(x.shape[1:]))  # the same memory
    most = int(values.shape[1] * gamma / 2)
    a_turn = max(1, min(pairs, most // TURNS))
    active = np.arange(len(x))
    for turn in range(0, most, a_turn):
        if not len(active):
            break
        logits, pull = linearized(classifier, x_adv[active])
        unfinished = logits.argmax(axis=1) != goals[active]
        if not unfinished.any():
            break
        choose = SALIENCY[outputs](logits, pull, goals[active], float(np.sign(theta)))
        count, stuck = min(a_turn, most - turn), []
        for i in np.flatnonzero(unfinished):
            image = values[active[i]]
            features = choose(int(i), image < 1 if theta > 0 else image > 0, count)
            image[features] = np.clip(image[features] + np.float32(theta), 0, 1)
            stuck += [] if len(features) else [i]
        unfinished[stuck] = False
        active = active[unfinished]
    return x_adv


def _of_logits(logits: Logits, pull: Pull, goals: Labels, sign: float) -> Choose:
    goal = np.eye(logits.shape[1], dtype=np.float32)[goals]
    alpha, beta = (sign * pull(cotangent).reshape(len(goals), -1) for cotangent in (goal, 1 - goal))

    def choose(i: int, domain: Domain, count: int) -> Features:
        features: list[int] = []
        for _ in range(count):
            pair = best_pair(alpha[i], beta[i], domain)
            if pair[0] < 0:
                break
            features += pair
            domain[list(pair)] = False
        return np.array(features, np.int64)

    return choose


def _of_probabilities(logits: Logits, pull: Pull, goals: Labels, sign: float) -> Choose:
    """The gradient of the target's probability p, divided by p (1 - p): that of its logit less the others' mean."""
    from scipy.special import softmax

    own = np.arange(len(goals)), goals
    others = logits.astype(np.float64)
    others[own] = -np.inf
    weights = -softmax(others, axis=1)
    weights[own] = 1
    alpha = sign * pull(weights.astype(np.float32)).reshape(len(goals), -1)

    def choose(i: int, domain: Domain, count: int) -> Features:
        free = np.flatnonzero(domain)
        if len(free) > 2 * count:
            free = free[np.argpartition(-alpha[i, free], 2 * count)[: 2 * count]]
        free = free[np.argsort(-alpha[i, free], kind="stable")]
        free = free[: len(free) // 2 * 2]
        helping = alpha[i, free].reshape(-1, 2).sum(axis=1) > 0
        steepest: Features = free[np.repeat(helping, 2)]
        return steepest

    return choose


SALIENCY = {"logits": _of_logits, "probabilities": _of_probabilities}
