"""Gradient masking: the attacker's gradients carry noise, the logits stay as they are.

The noise is on the Jacobian: eps * N(0, 1) on the derivative of each logit by each pixel, drawn from the seed and the
content of the image. So the gradient stays linear in the cotangent, as the protocol demands. And the share of noise is
the same for a library that averages its loss over the batch and for one that takes the sum; noise of a fixed size on
the gradient of the loss would weigh differently in the two.
"""

from __future__ import annotations

import numpy as np

from sparring.adapters.protocol import Classifier, Differentiable, Images, Logits, check_cotangent, check_images, lacks
from sparring.adapters.wrappers.transformed import coins


class GradientNoise:
    """A classifier with noise on its gradients, the mean of ``draws``, as a ``Differentiable``."""

    framework = "defended"
    gradients = "expectation"

    def __init__(self, inner: Differentiable, seed: int, eps: float, draws: int) -> None:
        self.inner, self.seed, self.eps, self.draws = inner, seed, eps, draws
        self.input_shape, self.classes = inner.input_shape, inner.classes
        self.lacks = lacks(inner)

    def logits(self, x: Images) -> Logits:
        """The inner classifier's."""
        return self.inner.logits(x)

    def vjp(self, x: Images, cotangent: Logits) -> Images:
        """The inner classifier's gradient, plus the cotangent through the mean of ``draws`` Jacobians of noise.

        The mean is drawn in one go: the mean of n draws has the deviation divided by the root of n.
        """
        check_images(x, self.input_shape)
        check_cotangent(cotangent, len(x), self.classes)
        gradient, coin = self.inner.vjp(x, cotangent).copy(), coins(self.seed, x, self.draws)
        for index, weights in enumerate(cotangent):
            noise = coin(index).standard_normal((self.classes, x[index].size), np.float32)
            gradient[index] += np.float32(self.eps / self.draws**0.5) * (weights @ noise).reshape(x.shape[1:])
        return gradient


def averaged(classifier: Classifier, *, seed: int, eps: float, draws: int) -> Classifier:
    """What is deployed, and what an attacker who knows of it sees: each gradient taken ``draws`` times, and averaged.

    Campbell, Lasselle (gradient masking); the mean is Athalye, Carlini, Wagner 2018, section 4.2. A classifier without
    gradients has nothing to mask, and stays as it is.
    """
    return GradientNoise(classifier, seed, eps, draws) if isinstance(classifier, Differentiable) else classifier


def unaware(classifier: Classifier, *, seed: int, eps: float, draws: int) -> Classifier:
    """What an attacker who does not know of it sees: each gradient once, with its noise."""
    return averaged(classifier, seed=seed, eps=eps, draws=1)
