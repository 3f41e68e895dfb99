"""What the papers' attacks are made of: logits, gradients, balls and boxes, in float64.

Images are float64 (N, C, H, W) in [0, 1] and stay so from step to step. The protocol takes float32: ``logits`` and
``pull_back`` round them, and nothing else does. ``y`` (N,) are the classes to leave, or to reach where ``targeted``.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from sparring.adapters.protocol import Classifier, Differentiable, Labels

Array: TypeAlias = npt.NDArray[np.float64]


def logits(model: Classifier, x: Array) -> Array:
    """Z(x), (N, classes)."""
    return model.logits(x.astype(np.float32)).astype(np.float64)


def pull_back(model: Differentiable, x: Array, cotangent: Array) -> Array:
    """∇ₓ of Z(x) · cotangent, image by image; cotangent (N, classes)."""
    return model.vjp(x.astype(np.float32), cotangent.astype(np.float32)).astype(np.float64)


def loss_gradient(model: Differentiable, x: Array, y: Labels, targeted: bool) -> Array:
    """∇ₓJ(x, y), where J is the cross-entropy, up to a positive factor an image; ∇ₓ(-J), where ``targeted``.

    With p = softmax(Z), ∇J = p - onehot(y) in the logits, and that is (1 - p_y) (q - onehot(y)), where q is the softmax
    over the other classes alone. The factor 1 - p_y is left out: it underflows where the model is certain, and every
    attack here takes the gradient's sign or divides it by its length.
    """
    from scipy.special import softmax

    z = logits(model, x)
    own = np.arange(len(z)), y
    z[own] = -np.inf
    q = softmax(z, axis=1)
    q[own] = -1
    gradient = pull_back(model, x, q)
    return -gradient if targeted else gradient


def cross_entropy(z: Array, y: Labels) -> Array:
    """J, (N,): log of the sum of exp(Z), less Z_y."""
    largest = z.max(axis=1)
    loss: Array = np.log(np.exp(z - largest[:, None]).sum(axis=1)) + largest - z[np.arange(len(z)), y]
    return loss


def margin_loss(z: Array, y: Labels, targeted: bool) -> Array:
    """Z_y - max of the others, (N,); the other way round where ``targeted``. Below 0 the attack has succeeded."""
    own = np.arange(len(z)), y
    others = z.copy()
    others[own] = -np.inf
    margin: Array = z[own] - others.max(axis=1)
    return -margin if targeted else margin


def onehot(k: Labels, classes: int) -> Array:
    """(N, classes), 1 at each k."""
    equal: npt.NDArray[np.bool_] = k[:, None] == np.arange(classes)
    return equal.astype(np.float64)


def lengths(v: Array, order: float = 2) -> Array:
    """The norm of every v[i], in a shape that divides v."""
    norms: Array = np.linalg.norm(v.reshape(len(v), math.prod(v.shape[1:])), ord=order, axis=1)
    return norms.reshape(-1, *[1] * (v.ndim - 1))


def unit(v: Array, order: float = 2) -> Array:
    """Every v[i] divided by its norm; zero stays zero."""
    length = lengths(v, order)
    return v / np.where(length > 0, length, 1)


def box(x: Array) -> Array:
    """The nearest images in [0, 1]."""
    return np.clip(x, 0, 1)


def ball(x_adv: Array, x: Array, norm: str, eps: float) -> Array:
    """The nearest points of the balls of radius eps around x (clipping them to the box leaves them in the balls)."""
    if norm == "linf":
        return np.clip(x_adv, x - eps, x + eps)
    delta = x_adv - x
    return x + delta * np.minimum(1, eps / np.maximum(lengths(delta), eps))
