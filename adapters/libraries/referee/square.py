"""Square Attack, as its paper has it: Andriushchenko, Croce, Flammarion, Hein 2020, Square Attack."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sparring.adapters.libraries.referee.terms import Array, ball, box, cross_entropy, logits, margin_loss, unit
from sparring.adapters.protocol import Classifier, Labels

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""The iterations of 10,000 after which p is halved (the authors' code)."""


def square(
    model: Classifier,
    x: Array,
    y: Labels,
    *,
    norm: str,
    eps: float,
    queries: int,
    p_init: float,
    restarts: int,
    seed: int,
    targeted: bool = False,
) -> Array:
    """Algorithm 1, ``restarts`` times for the images that are not adversarial by then; the lowest loss counts.

    A misclassified image stays as it is; to know that takes one more query. Every image has its own random numbers.
    """
    best = x.copy()
    lowest, fooled = judge(model, x, y, targeted)
    for restart in range(restarts):
        on = np.flatnonzero(~fooled)
        if not len(on):
            break
        generators = [np.random.default_rng([seed, restart, i]) for i in on.tolist()]
        x_hat, loss, now = random_search(model, x[on], y[on], norm, eps, queries, p_init, generators, targeted)
        better = now | (loss < lowest[on])
        best[on[better]], lowest[on[better]], fooled[on] = x_hat[better], loss[better], now
    return best


def random_search(
    model: Classifier,
    x: Array,
    y: Labels,
    norm: str,
    eps: float,
    queries: int,
    p_init: float,
    generators: Sequence[np.random.Generator],
    targeted: bool,
) -> tuple[Array, Array, npt.NDArray[np.bool_]]:
    """Algorithm 1: x̂, its loss l*, and whether it is adversarial. One query an image and iteration."""
    initial, sample = (stripes, sample_linf) if norm == "linf" else (tiles, sample_l2)
    x_hat = box(np.stack([initial(eps, image, rng) for image, rng in zip(x, generators, strict=True)]))
    lowest, fooled = judge(model, x_hat, y, targeted)
    for i in range(1, queries):
        on = np.flatnonzero(~fooled)
        if not len(on):
            break
        h = side(norm, p_init, i, queries, x.shape[2], x.shape[3])
        delta = np.stack([sample(eps, h, x_hat[j], x[j], generators[j]) for j in on.tolist()])
        new = box(ball(x_hat[on] + delta, x[on], norm, eps))
        loss, now = judge(model, new, y[on], targeted)
        better = loss < lowest[on]
        x_hat[on[better]], lowest[on[better]], fooled[on[better]] = new[better], loss[better], now[better]
    return x_hat, lowest, fooled


def judge(model: Classifier, x: Array, y: Labels, targeted: bool) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Section 3.1: the loss, which is the margin, or towards a target the cross-entropy; whether x is adversarial."""
    z = logits(model, x)
    margin = margin_loss(z, y, targeted)
    return cross_entropy(z, y) if targeted else margin, margin < 0


def side(norm: str, p_init: float, i: int, queries: int, height: int, width: int) -> int:
    """Section 3.2: a square of the share p of the image; p falls as in 10,000 iterations, rescaled to ``queries``.

    The nearest whole number to the root of p · height · width; under L2 an odd one of 3 and more. At most the image.
    """
    p = p_init / 2 ** int(np.searchsorted(HALVINGS, int(i / queries * 10_000)))
    h = round(math.sqrt(p * height * width))
    h = max(h, 1) if norm == "linf" else max(h + (h + 1) % 2, 3)
    return min(h, height, width)


def signs(channels: int, rng: np.random.Generator) -> Array:
    """±1 for every channel, (C, 1, 1)."""
    return rng.choice([-1.0, 1.0], (channels, 1, 1))


def window(h: int, image: Array, rng: np.random.Generator) -> tuple[slice, slice, slice]:
    """A random square of side h, in all channels."""
    _, height, width = image.shape
    r, s = rng.integers(height - h, endpoint=True), rng.integers(width - h, endpoint=True)
    return np.s_[:, r : r + h, s : s + h]


def stripes(eps: float, x: Array, rng: np.random.Generator) -> Array:
    """Section 3.3: vertical stripes of width one, each channel of each at ±eps."""
    channels, _, width = x.shape
    return x + eps * rng.choice([-1.0, 1.0], (channels, 1, width))


def sample_linf(eps: float, h: int, x_hat: Array, x: Array, rng: np.random.Generator) -> Array:
    """Algorithm 2: ±2 eps in a random square, one sign a channel."""
    delta = np.zeros_like(x)
    delta[window(h, x, rng)] = 2 * eps * signs(len(x), rng)
    return delta


def tiles(eps: float, x: Array, rng: np.random.Generator) -> Array:
    """Section 3.4: a grid of 5 x 5 squares in the image's middle, each with the shape eta, together of length eps."""
    channels, height, width = x.shape
    n = min(5, height, width)
    h = min(height, width) // n
    delta = np.zeros_like(x)
    for r in range((height - n * h) // 2, (height + n * h) // 2, h):
        for s in range((width - n * h) // 2, (width + n * h) // 2, h):
            delta[:, r : r + h, s : s + h] = signs(channels, rng) * eta(h, rng)
    start: Array = x + eps * unit(delta[None])[0]
    return start


def sample_l2(eps: float, h: int, x_hat: Array, x: Array, rng: np.random.Generator) -> Array:
    """Algorithm 3: the first window gets the length of the second, and the rest of eps, channel by channel."""
    nu = x_hat - x
    w1, w2 = window(h, x, rng), window(h, x, rng)
    either_window = np.zeros(x.shape[1:], bool)
    either_window[w1[1:]] = either_window[w2[1:]] = True
    unused = max(eps**2 - (nu**2).sum(), 0)
    available = np.sqrt((nu[:, either_window] ** 2).sum(axis=1) + unused / len(x))[:, None, None]
    mixed = signs(len(x), rng) * eta(h, rng) + unit(nu[w1])
    nu[w2] = 0
    nu[w1] = unit(mixed) * available
    return x + nu - x_hat


def eta(h: int, rng: np.random.Generator) -> Array:
    """Section 3.4: two bumps of opposite sign, side by side or, as likely, one above the other; of length 1, (h, h)."""
    k = h // 2
    shape = np.hstack([bump(h, k), -bump(h, h - k)])
    shape /= np.linalg.norm(shape)
    return shape.T if rng.random() < 0.5 else shape


def bump(h1: int, h2: int) -> Array:
    """Equation 2, for h1 >= h2: falling from the middle to the border with the distance max(|r - r₀|, |s - s₀|)."""
    n = h1 // 2
    sums = np.cumsum(1 / np.arange(n + 1, 0, -1) ** 2)  # [M] of 1 / (n + 1 - k)² over k = 0 ... M
    distance = np.maximum(abs(np.arange(h1) - h1 // 2)[:, None], abs(np.arange(h2) - h2 // 2))
    heights: Array = sums[n - distance]
    return heights
