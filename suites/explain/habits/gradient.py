"""The gradient attacks under habits: FGSM, BIM, PGD, MI-FGSM and NI-FGSM, each with any detail changed.

With ``Habits()`` each is the referee's attack. A habit is what an implementation does differently: another step,
another order of projection and clip, another sign of zero. The same rules attack a classifier (``simulate``) and
recompute a library's recorded steps (``replay``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

from sparring.adapters.attacks.starts import draw_start
from sparring.adapters.parameters import Params
from sparring.adapters.protocol import Differentiable, Images, Labels

Array = npt.NDArray[Any]
Operation = Literal["step", "project", "box"]
Grid = Literal["float16", "bfloat16", "bytes", "bytes, cut off"]
Where = Literal["iterate", "query", "output", "gradient", "sum"]
Way = Literal["usual", "over its largest", "of length 1", "as it is"]

ATTACKS = (("fgsm", "linf"), ("bim", "linf"), ("pgd", "linf"), ("pgd", "l2"), ("mi-fgsm", "linf"), ("ni-fgsm", "linf"))
"""The attacks that can be simulated here, (name, norm)."""
AXES = (-3, -2, -1)


@dataclass(frozen=True)
class Habits:
    """The details of an implementation; the defaults are the referee's."""

    start: Literal["as asked", "image", "given"] = "as asked"
    leads_from: Literal["point", "image"] = "point"
    """where the first step begins: at the point of its gradient, or at the image"""
    step: float | tuple[float, ...] = 1.0
    """as a multiple of the requested step; one number, or one for each step"""
    way: Way = "usual"
    """the direction of a step: the gradient's sign (linf) or unit vector (l2), which is usual; the gradient divided by
    its largest value or by its length; or the gradient itself"""
    budget: float = 1.0
    """as a multiple of the requested eps"""
    steps: int = 0
    """the number of steps beyond the requested ones"""
    order: tuple[Operation, ...] = ("step", "project", "box")
    last_order: tuple[Operation, ...] | None = None
    """the order of the last step, if it differs"""
    bounds: tuple[float, float] = (0.0, 1.0)
    labels: Literal["given", "predicted", "current", "next"] = "given"
    """the labels in the loss: those of the call, the classes predicted for the clean images or each point, or y + 1"""
    loss: Literal["cross-entropy", "margin"] = "cross-entropy"
    """the margin is the highest other logit minus the label's"""
    reduction: Literal["sum", "mean"] = "sum"
    exact: bool = True
    """whether the loss has float64's gradient; otherwise float32 rounds the label's share, p - 1"""
    sign_of_zero: float = 0.0
    early_stop: Literal["never", "before a step", "after a step", "no progress"] = "never"
    """an image stops once it is misclassified (before it moves at all, or after its first step)"""
    returns: Literal["last", "best"] = "last"
    grid: Grid | None = None
    where: Where = "iterate"
    """what is rounded to the grid; for ``sum`` the point, the move and their sum, before the projection"""
    floor: Literal["none", "plus 1e-10", "at least 1e-12"] = "none"
    """what keeps the length of a gradient away from zero (l2)"""
    momentum: Literal["of gradients", "by their mean", "of signs", "unscaled", "none"] = "of gradients"
    """what is accumulated: gradients divided by the sum (or the mean) of their absolute values, signs, or gradients"""
    decay: float = 1.0
    """as a multiple of the requested decay"""
    looks_ahead: bool = True
    """NI-FGSM's gradient is taken where the momentum leads"""
    ahead: float | None = None
    """how far it looks ahead, as a multiple of the requested step; None: as far as the step itself"""


@dataclass(frozen=True)
class Recipe:
    """An attack with its parameters, as the rules need them."""

    attack: str
    norm: str
    eps: float
    eps_step: float
    steps: int
    decay: float | None
    random_start: bool
    targeted: bool


def recipe(attack: str, norm: str, params: Params, targeted: bool = False) -> Recipe:
    """The recipe of one of ``ATTACKS`` from its canonical parameters."""
    eps = float(params["eps"])
    return Recipe(
        attack,
        norm,
        eps,
        float(params.get("eps_step", eps)),
        int(params.get("steps", 1)),
        params.get("decay"),
        bool(params.get("random_start", False)),
        targeted,
    )


def rounded(values: Array, grid: Grid | None) -> Array:
    """The values on a grid: that of float16, of bfloat16, or of 256 levels, rounded or cut off."""
    if grid == "float16":
        return np.asarray(np.clip(values, -6e4, 6e4).astype(np.float16), np.float64)
    if grid == "bfloat16":
        bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
        upper = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
        return np.asarray(upper.astype(np.uint32).view(np.float32), np.float64)
    if grid == "bytes":
        return np.asarray(np.round(values * 255) / 255)
    if grid == "bytes, cut off":
        return np.asarray(np.floor(values * 255 + 1e-6) / 255)
    return values


def spacing(values: Array, grid: Grid | None) -> Array:
    """The distance from a rounded value to its neighbors."""
    if grid in ("float16", "bfloat16"):
        bits = 10 if grid == "float16" else 7
        exponent = np.floor(np.log2(np.maximum(np.abs(values), 2.0**-14)))
        return np.asarray(2.0 ** (exponent - bits))
    return np.full_like(values, 1 / 255 if grid else 0.0)


def length(values: Array) -> Array:
    """The Euclidean length of each image, with its axes kept at length one."""
    return np.asarray(np.sqrt((values.astype(np.float64) ** 2).sum(axis=AXES, keepdims=True)))


def accumulate(gradient: Array, before: Array, recipe: Recipe, habits: Habits) -> Array:
    """The momentum after one more gradient (Dong et al. 2018, equation 6); the gradient itself without momentum."""
    if recipe.decay is None or habits.momentum == "none":
        return gradient
    if habits.momentum == "of signs":
        scaled = np.sign(gradient)
    elif habits.momentum == "unscaled":
        scaled = gradient
    else:
        size = np.abs(gradient)
        total = (size.mean if habits.momentum == "by their mean" else size.sum)(axis=AXES, keepdims=True)
        scaled = gradient / np.where(total > 0, total, np.inf)
    return np.asarray(recipe.decay * habits.decay * before + scaled)


def direction(momentum: Array, recipe: Recipe, habits: Habits) -> Array:
    """The direction of a step: the sign, or the unit vector under l2, unless the habits say otherwise."""
    if habits.grid and habits.where == "gradient":
        momentum = rounded(momentum, habits.grid)
    if habits.way == "as it is":
        return momentum
    if habits.way == "over its largest":
        largest = np.abs(momentum).max(axis=AXES, keepdims=True)
        return np.asarray(momentum / np.where(largest > 0, largest, np.inf))
    if recipe.norm == "l2" or habits.way == "of length 1":
        size = length(momentum)
        if habits.floor == "plus 1e-10":
            size = size + 1e-10
        elif habits.floor == "at least 1e-12":
            size = np.maximum(size, 1e-12)
        return np.asarray(momentum / np.where(size > 0, size, np.inf))
    return np.asarray(np.where(momentum == 0, habits.sign_of_zero, np.sign(momentum)))


def step_sizes(count: int, recipe: Recipe, habits: Habits) -> Array:
    """The length of each of ``count`` steps."""
    factors = np.atleast_1d(np.asarray(habits.step, np.float64))
    padded = np.concatenate([factors, np.repeat(factors[-1:], max(0, count - len(factors)))])
    return np.asarray(recipe.eps_step * padded[:count])


def look_ahead(x: Array, momentum: Array, size: Any, recipe: Recipe, habits: Habits) -> Array:
    """The point of the next gradient: x, or where NI-FGSM's momentum leads (Lin et al. 2020, equation 6)."""
    if recipe.attack != "ni-fgsm" or not habits.looks_ahead or recipe.decay is None:
        return x
    far = size if habits.ahead is None else recipe.eps_step * habits.ahead
    return np.asarray(x + recipe.decay * habits.decay * far * momentum)


def advance(x: Array, image: Array, move: Array, recipe: Recipe, habits: Habits, last: bool = False) -> Array:
    """One step by ``move``, with the projection onto the ball and the clip to the box in the order of the habits."""
    order = habits.last_order if last and habits.last_order is not None else habits.order
    for operation in order:
        if operation == "step":
            x = add(x, move, habits)
        elif operation == "box":
            x = np.clip(x, *habits.bounds)
        else:
            x = image + project(x - image, recipe.norm, recipe.eps * habits.budget)
    return np.asarray(rounded(x, habits.grid) if habits.where == "iterate" else x)


def add(x: Array, move: Array, habits: Habits) -> Array:
    """x + move; on a grid, with the rounding of its own arithmetic."""
    if habits.grid is None or habits.where != "sum":
        return np.asarray(x + move)
    return rounded(rounded(x, habits.grid) + rounded(move, habits.grid), habits.grid)


def project(delta: Array, norm: str, eps: float) -> Array:
    """The nearest change within the ball of radius eps."""
    if norm == "linf":
        return np.asarray(np.clip(delta, -eps, eps))
    size = length(delta)
    return np.asarray(delta * np.minimum(1.0, eps / np.where(size > 0, size, 1.0)))


def cross_entropy(logits: Array, labels: Array) -> Array:
    """The cross-entropy of each row, in float64; logits (..., classes), labels (...)."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    own = np.take_along_axis(shifted, labels[..., None], axis=-1)[..., 0]
    return np.asarray(np.log(np.exp(shifted).sum(axis=-1)) - own)


def margin(logits: Array, labels: Array) -> Array:
    """The label's logit minus the highest other: below zero where the image is misclassified."""
    wide = logits.astype(np.float64)
    own = np.take_along_axis(wide, labels[..., None], axis=-1)
    others = np.where(np.arange(wide.shape[-1]) == labels[..., None], -np.inf, wide)
    return np.asarray(own[..., 0] - others.max(axis=-1))


def margin_shares(logits: Array, labels: Array) -> Array:
    """The derivative of the highest other logit minus the label's; logits (..., classes), labels (...)."""
    own = np.arange(logits.shape[-1]) == labels[..., None]
    best = np.where(own, -np.inf, logits.astype(np.float64)).argmax(axis=-1)
    return np.asarray(1.0 * (np.arange(logits.shape[-1]) == best[..., None]) - own)


def loss_labels(habits: Habits, logits: Array, y: Labels) -> Labels:
    """The labels in the loss, (N,); logits (N, classes) of the clean images, or of the current points."""
    if habits.labels in ("predicted", "current"):
        return np.asarray(logits.argmax(axis=-1), np.int64)
    return (y + 1) % logits.shape[-1] if habits.labels == "next" else y


def simulate(
    classifier: Differentiable,
    x: Images,
    y: Labels,
    recipe: Recipe,
    habits: Habits,
    *,
    seed: int = 0,
    starts: Images | None = None,
) -> Images:
    """Attack under these habits. ``x`` (N, C, H, W), ``y`` (N,) the true labels, or the targets of a targeted attack.

    ``starts`` (N, C, H, W): the starting points under the habit ``given``. Returns images, float32 of the shape of x.
    """
    if not len(x):
        return x.copy()
    image = x.astype(np.float64)
    current, momentum = _start(x, recipe, habits, seed, starts), np.zeros(x.shape)
    labels = loss_labels(habits, classifier.logits(x), y)
    count, visited, losses = max(recipe.steps + habits.steps, 0), [current], []
    going, before = np.ones(len(x), bool), np.full(len(x), -np.inf)
    for index, size in enumerate(step_sizes(count, recipe, habits)):
        point = look_ahead(current, momentum, size, recipe, habits)
        query = rounded(point, habits.grid if habits.where == "query" else None).astype(np.float32)
        logits = classifier.logits(query)
        labels = loss_labels(habits, logits, y) if habits.labels == "current" else labels
        loss = cross_entropy(logits, labels)
        losses.append(loss)
        going &= ~_stops(habits, index, logits, y, recipe, loss, before)
        before = loss
        gradient = classifier.vjp(query, _cotangent(logits, labels, recipe, habits)).astype(np.float64)
        momentum = accumulate(gradient, momentum, recipe, habits)
        move = size * direction(momentum, recipe, habits)
        begin = image if index == 0 and habits.leads_from == "image" else current
        moved = advance(begin, image, move, recipe, habits, last=index == count - 1)
        current = np.where(going[:, None, None, None], moved, current)
        visited.append(current)
    if habits.returns == "best":
        losses.append(cross_entropy(classifier.logits(current.astype(np.float32)), labels))
        best = np.argmax((-1 if recipe.targeted else 1) * np.stack(losses), axis=0)
        current = np.stack(visited)[best, np.arange(len(x))]
    return np.asarray(rounded(current, habits.grid if habits.where == "output" else None), np.float32)


def _start(x: Images, recipe: Recipe, habits: Habits, seed: int, starts: Images | None) -> Array:
    if habits.start == "given" and starts is not None:
        return starts.astype(np.float64)
    if habits.start == "as asked" and recipe.random_start:
        return draw_start(x, recipe.norm, recipe.eps, seed).astype(np.float64)
    return x.astype(np.float64)


def _cotangent(logits: Array, labels: Labels, recipe: Recipe, habits: Habits) -> Images:
    residual, own = softmax(logits.astype(np.float64), axis=-1), (np.arange(len(labels)), labels)
    if habits.loss == "margin":
        residual = margin_shares(logits, labels)
    elif habits.exact:
        residual[own] = 0
        residual[own] = -residual.sum(axis=1)  # p - 1, without its rounding
    else:
        residual = residual.astype(np.float32)
        residual[own] -= np.float32(1)
    scale = (-1.0 if recipe.targeted else 1.0) / (len(labels) if habits.reduction == "mean" else 1)
    return np.asarray(scale * residual, np.float32)


def _stops(
    habits: Habits, index: int, logits: Array, y: Labels, recipe: Recipe, loss: Array, before: Array
) -> npt.NDArray[np.bool_]:
    if habits.early_stop == "never" or (habits.early_stop == "after a step" and index == 0):
        return np.zeros(len(y), bool)
    if habits.early_stop == "no progress":
        return np.asarray(loss >= before if recipe.targeted and index else loss <= before)
    return done(logits, y, recipe.targeted)


def done(logits: Array, y: Labels, targeted: bool) -> npt.NDArray[np.bool_]:
    """Which images, (N,), the attack has brought to its aim: misclassified, or classified as the target."""
    return np.asarray((logits.argmax(axis=-1) == y) == targeted)
