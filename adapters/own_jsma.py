"""The Jacobian-based saliency map attack, for a batch of images at once, in float32 NumPy on gradients.

Papernot et al. 2016, "The Limitations of Deep Learning in Adversarial Settings", algorithms 2 and 3.
"""

from __future__ import annotations

import math

import numpy as np

from sparring.adapters.protocol import Differentiable, Images, Labels
from sparring.adapters.saliency_pairs import best_pair


def jsma(classifier: Differentiable, x: Images, y: Labels, *, targeted: bool, theta: float, gamma: float) -> Images:
    """Images (N, C, H, W) with pairs of values changed by ``theta`` until they are classified as ``y``.

    Untargeted, the class to reach is the one after ``y``: the algorithm always moves towards one. At most
    features * ``gamma`` / 2 pairs are changed, rounded down. The derivatives are those of the logits; the search domain
    are the values that ``theta`` can still change. An image that has arrived, that has no pair or no turn left, is
    returned as far as it came.

    The referee's algorithm, and its pairs but for rounding. The classifier is asked for each image that goes on: for
    its logits, and for its two gradients in one call.
    """
    goals = y if targeted else (y + 1) % classifier.classes
    x_adv = x.copy()
    values = x_adv.reshape(len(x), math.prod(x.shape[1:]))  # the same memory
    sign = np.float32(np.sign(theta))
    active = np.arange(len(x))
    for _ in range(int(values.shape[1] * gamma / 2)):
        if len(active):
            active = active[classifier.logits(x_adv[active]).argmax(axis=1) != goals[active]]
        if not len(active):
            break
        goal = np.eye(classifier.classes, dtype=np.float32)[goals[active]]
        twice = np.concatenate([active, active])
        gradients = classifier.vjp(x_adv[twice], np.concatenate([goal, 1 - goal])) * sign
        alpha, beta = gradients.reshape(2, len(active), -1)
        domain = values[active] < 1 if theta > 0 else values[active] > 0
        pairs = np.array([best_pair(*image) for image in zip(alpha, beta, domain, strict=True)])
        found = pairs[:, 0] >= 0
        active, pairs = active[found], pairs[found]
        chosen = active[:, None], pairs
        values[chosen] = np.clip(values[chosen] + np.float32(theta), 0, 1)
    return x_adv
