"""The referee: the attacks as their papers define them, on the protocol alone. It is a library beside the others.

Read each function beside its paper. ``x``: float64 (N, C, H, W) in [0, 1]; ``y`` (N,): the classes to leave,
or to reach where ``targeted``. Each returns images like ``x``. No image depends on the others of its batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np

from sparring.adapters.attacks.library import AttackMapping, Unsupported, maps
from sparring.adapters.attacks.starts import draw_start
from sparring.adapters.libraries.functions import function_library
from sparring.adapters.libraries.referee.square import square
from sparring.adapters.libraries.referee.terms import (
    Array,
    ball,
    box,
    lengths,
    logits,
    loss_gradient,
    margin_loss,
    onehot,
    pull_back,
    unit,
)
from sparring.adapters.libraries.saliency import best_pair
from sparring.adapters.protocol import Classifier, Differentiable, Images, Labels


def fgsm(model: Differentiable, x: Array, y: Labels, *, eps: float, targeted: bool = False) -> Array:
    """Goodfellow, Shlens, Szegedy 2015, section 4: x + eps sign(∇J), in the box."""
    return box(x + eps * np.sign(loss_gradient(model, x, y, targeted)))


def bim(
    model: Differentiable, x: Array, y: Labels, *, eps: float, eps_step: float, steps: int, targeted: bool = False
) -> Array:
    """Kurakin, Goodfellow, Bengio 2017, section 2.2; after every step clipped to the ball and the box."""
    x_adv = x
    for _ in range(steps):
        x_adv = x_adv + eps_step * np.sign(loss_gradient(model, x_adv, y, targeted))
        x_adv = box(ball(x_adv, x, "linf", eps))
    return x_adv


def pgd(
    model: Differentiable,
    x: Array,
    y: Labels,
    *,
    norm: str,
    eps: float,
    eps_step: float,
    steps: int,
    random_start: bool,
    restarts: int,
    seed: int,
    targeted: bool = False,
) -> Array:
    """Madry et al. 2018, section 2.1, from ``restarts`` points of ``draw_start``; the end of the lowest margin counts.

    Without a random start there is one run, from the image itself.
    """
    starts = [x]
    if random_start:  # the batches' seeds follow one another, hence the long stride
        starts = [draw_start(x.astype(np.float32), norm, eps, seed + (i << 32)).astype(float) for i in range(restarts)]
    ends = [pgd_from(model, x, y, start, norm, eps, eps_step, steps, targeted) for start in starts]
    return ends[0] if len(ends) == 1 else lowest_margin(model, ends, y, targeted)


def pgd_from(
    model: Differentiable,
    x: Array,
    y: Labels,
    start: Array,
    norm: str,
    eps: float,
    eps_step: float,
    steps: int,
    targeted: bool = False,
) -> Array:
    """Madry et al. 2018, section 2.1: the steepest step of the norm, back to the ball, back to the box."""
    x_adv = start
    for _ in range(steps):
        gradient = loss_gradient(model, x_adv, y, targeted)
        x_adv = x_adv + eps_step * (np.sign(gradient) if norm == "linf" else unit(gradient))
        x_adv = box(ball(x_adv, x, norm, eps))
    return x_adv


def lowest_margin(model: Classifier, ends: list[Array], y: Labels, targeted: bool) -> Array:
    """For each image the version that comes nearest to success, or succeeds most clearly."""
    losses = np.stack([margin_loss(logits(model, end), y, targeted) for end in ends])
    lowest: Array = np.stack(ends)[losses.argmin(axis=0), np.arange(len(y))]
    return lowest


def mi_fgsm(
    model: Differentiable,
    x: Array,
    y: Labels,
    *,
    eps: float,
    eps_step: float,
    steps: int,
    decay: float,
    targeted: bool = False,
) -> Array:
    """Dong et al. 2018, algorithm 1 (equations 6 and 7), clipped to the ball, as section 3.1 says, and the box."""
    x_adv, g = x, np.zeros_like(x)
    for _ in range(steps):
        g = decay * g + unit(loss_gradient(model, x_adv, y, targeted), order=1)
        x_adv = box(ball(x_adv + eps_step * np.sign(g), x, "linf", eps))
    return x_adv


def ni_fgsm(
    model: Differentiable,
    x: Array,
    y: Labels,
    *,
    eps: float,
    eps_step: float,
    steps: int,
    decay: float,
    targeted: bool = False,
) -> Array:
    """Lin et al. 2020, section 3.2, equations 6 to 8. The point looked ahead to may lie outside the box, as there."""
    x_adv, g = x, np.zeros_like(x)
    for _ in range(steps):
        x_nes = x_adv + eps_step * decay * g
        g = decay * g + unit(loss_gradient(model, x_nes, y, targeted), order=1)
        x_adv = box(ball(x_adv + eps_step * np.sign(g), x, "linf", eps))
    return x_adv


def deepfool(model: Differentiable, x: Array, y: Labels, *, steps: int, overshoot: float, candidates: int) -> Array:
    """Moosavi-Dezfooli, Fawzi, Frossard 2016, algorithm 2, and section 2's last paragraph on overshooting.

    As in the algorithm, xᵢ itself decides whether the class has changed, and only the sum of the steps is multiplied by
    1 + overshoot, once. The paper has no box; here every xᵢ is clipped to it. ``candidates``: the classes that are most
    probable at x, the own one among them. A misclassified image stays as it is, and so does one on a boundary, for its
    step has no length.
    """
    x_i = x.copy()
    others = np.argsort(-logits(model, x), axis=1, kind="stable")[:, 1:candidates]
    on = np.arange(len(x))
    for _ in range(steps):
        z = logits(model, x_i[on])
        correct = z.argmax(axis=1) == y[on]
        on, z = on[correct], z[correct]
        if not len(on):
            break
        x_i[on] = box(x_i[on] + step_to_the_nearest(model, x_i[on], z, y[on], others[on]))
    return box(x + (1 + overshoot) * (x_i - x))


def step_to_the_nearest(model: Differentiable, x: Array, z: Array, own: Labels, others: Labels) -> Array:
    """One turn of algorithm 2: rᵢ, to the nearest of the boundaries with ``others`` (N, m), as if they were flat."""
    row = np.arange(len(x))
    nearest, r = np.full(len(x), np.inf), np.zeros_like(x)
    for k in others.T:
        w = pull_back(model, x, onehot(k, z.shape[1]) - onehot(own, z.shape[1]))
        f = z[row, k] - z[row, own]
        with np.errstate(divide="ignore", invalid="ignore"):  # a boundary without a direction is infinitely far
            distance = abs(f) / lengths(w).ravel()
        closer = distance < nearest
        nearest[closer] = distance[closer]
        r[closer] = distance[closer, None, None, None] * unit(w[closer])
    return r


def cw(
    model: Differentiable,
    x: Array,
    y: Labels,
    *,
    steps: int,
    learning_rate: float,
    confidence: float,
    initial_const: float,
    search_steps: int,
    abort_early: bool,
    targeted: bool = False,
) -> Array:
    """Carlini, Wagner 2017, section VI.A, with the search for c as in the authors' code: tenfold until it succeeds,
    then halfway between the largest c that failed and the smallest that succeeded.

    The nearest adversarial image of all steps counts. Where there is none, the image stays as it is.
    """
    best, nearest = x.copy(), np.full(len(x), np.inf)
    c, low, high = np.full(len(x), float(initial_const)), np.zeros(len(x)), np.full(len(x), np.inf)
    for _ in range(search_steps):
        ends, distance = cw_for(model, x, y, c, steps, learning_rate, confidence, abort_early, targeted)
        succeeded, better = distance < np.inf, distance < nearest
        best[better], nearest[better] = ends[better], distance[better]
        low, high = np.where(succeeded, low, c), np.where(succeeded, c, high)
        c = np.where(high < np.inf, (low + high) / 2, 10 * c)
    return best


INSIDE = 0.999999
"""Pixels at 0 and 1, which tanh never reaches, start this far out (the authors' code)."""


def cw_for(
    model: Differentiable,
    x: Array,
    y: Labels,
    c: Array,
    steps: int,
    learning_rate: float,
    confidence: float,
    abort_early: bool,
    targeted: bool,
) -> tuple[Array, Array]:
    """Minimizes ‖½(tanh w + 1) - x‖² + c f(½(tanh w + 1)) by Adam, f(x) = max(margin, -confidence), f₆ in the paper.

    The nearest image whose margin is below -confidence, and its squared distance; infinity where none was met. Ends
    early for an image whose objective fell by less than a ten-thousandth in a tenth of the steps (the authors' code).
    """
    best, nearest = x.copy(), np.full(len(x), np.inf)
    w = np.arctanh(INSIDE * (2 * x - 1))
    m, v = np.zeros_like(x), np.zeros_like(x)
    on, earlier = np.arange(len(x)), np.full(len(x), np.inf)
    for t in range(steps):
        x_t = (np.tanh(w[on]) + 1) / 2
        z, distance = logits(model, x_t), lengths(x_t - x[on]).ravel() ** 2
        margin = margin_loss(z, y[on], targeted)
        better = (margin < -confidence) & (distance < nearest[on])
        best[on[better]], nearest[on[better]] = x_t[better], distance[better]

        if abort_early and t % max(steps // 10, 1) == 0:
            objective = distance + c[on] * np.maximum(margin, -confidence)
            falling = objective <= 0.9999 * earlier[on]
            earlier[on] = objective
            on, x_t, z, margin = on[falling], x_t[falling], z[falling], margin[falling]
            if not len(on):
                break

        f_gradient = pull_back(model, x_t, margin_cotangent(z, y[on], targeted) * (margin > -confidence)[:, None])
        gradient = 2 * (x_t - x[on]) + c[on].reshape(-1, 1, 1, 1) * f_gradient
        gradient *= 2 * x_t * (1 - x_t)  # the derivative of ½(tanh w + 1), ½(1 - tanh² w)
        w[on], m[on], v[on] = adam(w[on], m[on], v[on], gradient, t + 1, learning_rate)
    return best, nearest


def margin_cotangent(z: Array, y: Labels, targeted: bool) -> Array:
    """The derivative of ``margin_loss`` in the logits."""
    others = z.copy()
    others[np.arange(len(z)), y] = -np.inf
    cotangent = onehot(y, z.shape[1]) - onehot(others.argmax(axis=1), z.shape[1])
    return -cotangent if targeted else cotangent


def adam(w: Array, m: Array, v: Array, gradient: Array, t: int, learning_rate: float) -> tuple[Array, Array, Array]:
    """Kingma, Ba 2015, algorithm 1 with its own beta and epsilon: the next w, m and v; t counts from 1."""
    m = 0.9 * m + 0.1 * gradient
    v = 0.999 * v + 0.001 * gradient**2
    w = w - learning_rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return w, m, v


def jsma(model: Differentiable, x: Array, y: Labels, *, theta: float, gamma: float) -> Array:
    """Papernot et al. 2016, algorithms 2 and 3, towards the class y; F are the logits, as there.

    The search domain are the features that theta can still change: those at the bound from the beginning are left out,
    too. An image without a pair or a step left is returned as it is by then.
    """
    x_adv, on = x.copy(), np.arange(len(x))
    for _ in range(int(math.prod(x.shape[1:]) * gamma / 2)):
        z = logits(model, x_adv[on])
        on = on[z.argmax(axis=1) != y[on]]
        if not len(on):
            break
        target = onehot(y[on], z.shape[1])
        alpha, beta = pull_back(model, x_adv[on], target), pull_back(model, x_adv[on], 1 - target)
        domain = x_adv[on] < 1 if theta > 0 else x_adv[on] > 0
        of_each = (np.sign(theta) * part.reshape(len(on), -1) for part in (alpha, beta))
        pairs = [best_pair(*image) for image in zip(*of_each, domain.reshape(len(on), -1), strict=True)]
        has_pair = [pair[0] >= 0 for pair in pairs]
        for i, pair in zip(on[has_pair], np.array(pairs)[has_pair], strict=True):
            x_adv[i].ravel()[pair] += theta
        x_adv = box(x_adv)
        on = on[has_pair]
    return x_adv


FUNCTIONS: dict[str, Callable[..., Array]] = {
    function.__name__: function for function in (fgsm, bim, pgd, mi_fgsm, ni_fgsm, deepfool, cw, jsma, square)
}

SEED = {"seed": lambda c: c.seed}
ITERATED: dict[str, Any] = {"eps": "eps", "eps_step": "eps_step", "steps": "steps"}


def _pgd(norm: str) -> AttackMapping:
    return maps("pgd", **ITERATED, random_start="random_start", restarts="restarts", pinned={"norm": norm, **SEED})


def _square(norm: str) -> AttackMapping:
    return maps(
        "square",
        eps="eps",
        queries="queries",
        p_init="p_init",
        restarts="restarts",
        pinned={"norm": norm, **SEED},
    )


MAPPINGS: dict[tuple[str, str], AttackMapping] = {
    ("fgsm", "linf"): maps("fgsm", eps="eps"),
    ("bim", "linf"): maps("bim", **ITERATED),
    ("pgd", "linf"): _pgd("linf"),
    ("pgd", "l2"): _pgd("l2"),
    ("mi-fgsm", "linf"): maps("mi_fgsm", **ITERATED, decay="decay"),
    ("ni-fgsm", "linf"): maps("ni_fgsm", **ITERATED, decay="decay"),
    ("deepfool", "l2"): maps(
        "deepfool",
        steps="steps",
        overshoot="overshoot",
        candidates="candidates",
        targeted=Unsupported("DeepFool's paper has no targeted version"),
    ),
    ("cw", "l2"): maps(
        "cw",
        steps="steps",
        learning_rate="learning_rate",
        confidence="confidence",
        initial_const="initial_const",
        search_steps="search_steps",
        abort_early="abort_early",
    ),
    ("jsma", "l0"): maps("jsma", theta="theta", gamma="gamma"),
    ("square", "linf"): _square("linf"),
    ("square", "l2"): _square("l2"),
}


def _of_float32(attack: Callable[..., Array]) -> Callable[..., Images]:
    """The attack on the images that a library gets."""

    @wraps(attack)
    def rounded(model: Classifier, x: Images, y: Labels, **parameters: Any) -> Images:
        return attack(model, x.astype(np.float64), y, **parameters).astype(np.float32) if len(x) else x.copy()

    return rounded


LIBRARY = function_library(
    "referee",
    {name: _of_float32(attack) for name, attack in FUNCTIONS.items()},
    MAPPINGS,
    why_missing=lambda attack: f"the referee has no {attack.name}; its source is {attack.source}",
)
