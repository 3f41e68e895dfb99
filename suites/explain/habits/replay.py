"""Recompute a library's recorded gradient attack step by step under some habits, and find the habits that explain it.

Every step is recomputed from the library's own point and its own gradient. So rounding doesn't add up, and a sign that
is noise on this model is the same noise here. What the recomputation doesn't give is a difference of the rule itself:
the step, the projection, the clip, the sign of zero, the stop, what is returned, or the arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from itertools import permutations
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

from sparring.adapters.protocol import Classifier
from sparring.suites.explain.habits.gradient import (
    Grid,
    Habits,
    Operation,
    Recipe,
    Way,
    accumulate,
    advance,
    cross_entropy,
    direction,
    done,
    length,
    look_ahead,
    margin_shares,
    rounded,
    spacing,
    step_sizes,
)
from sparring.suites.explain.habits.trace import Trace

Array = npt.NDArray[Any]
CLOSE = 5e-6
"""The largest error that float32 may add to one step."""
WAYS: tuple[Way, ...] = ("usual", "over its largest", "of length 1", "as it is")
GRIDS: tuple[Grid, ...] = ("float16", "bytes", "bytes, cut off", "bfloat16")


@dataclass(frozen=True)
class Loss:
    """The loss that one library's cotangents show; each array is (T, N).

    ``label``: the label in the cross-entropy, -1 where the loss is no cross-entropy. ``scale``: the loss's factor (-1:
    it is descended). ``error``: the relative error of the fit. ``exact``: the label's own share is float64's, not
    rounded to a multiple of float32's spacing at 1. ``size``: the largest share; it is 0 near certainty, where neither
    label nor scale can be read. ``margin``: the loss is one multiple of the labels' margin; then ``label`` is -1.
    """

    label: Array
    scale: Array
    error: Array
    exact: Array
    size: Array
    margin: bool = False


@dataclass(frozen=True)
class Tape:
    """The recorded gradient queries of N images, padded to the longest, T: float64 arrays.

    ``image``, ``final``: (N, C, H, W). ``points``, ``gradients`` (of the loss that is climbed): (T, N, C, H, W).
    ``counts``: the number of gradient queries, (N,). ``logits``: (T + 1, N, classes), at the points and at the final
    image.
    """

    image: Array
    labels: Array
    points: Array
    gradients: Array
    counts: Array
    final: Array
    logits: Array
    loss: Loss

    @property
    def alive(self) -> Array:
        """Which images still make a query at which step, (T, N)."""
        return np.asarray(np.arange(len(self.points))[:, None] < self.counts[None])


def tape(trace: Trace, classifier: Classifier, recipe: Recipe) -> Tape:
    """The tape of a trace, with logits at every point; an image without a gradient query has a count of 0."""
    counts = np.array([len(path.gradients) for path in trace.paths])
    image = np.stack([path.image for path in trace.paths]).astype(np.float64)
    final = trace.images.astype(np.float64)
    labels = np.array([path.label for path in trace.paths])
    steps, n = int(counts.max(initial=0)), len(image)
    points, gradients = np.repeat(final[None], steps, axis=0), np.zeros((steps, *image.shape))
    cotangents = np.zeros((steps, n, classifier.classes))
    for column, path in enumerate(trace.paths):
        for row, query in enumerate(path.gradients):
            points[row, column], gradients[row, column] = query.x, query.result
            cotangents[row, column] = query.cotangent
    everything = np.concatenate([points, final[None]]).astype(np.float32)
    flat = np.clip(np.nan_to_num(everything), -1e6, 1e6).reshape(-1, *image.shape[1:])
    logits = np.concatenate([classifier.logits(part) for part in np.array_split(flat, max(1, len(flat) // 256))])
    logits = logits.reshape(steps + 1, n, -1)
    loss = read_loss(cotangents, logits[:-1], labels, recipe.targeted)
    alive = np.arange(steps)[:, None] < counts[None]
    loss = _unless_margin(loss, cotangents, logits[:-1], labels, alive)
    climbs = _climbs(loss, cotangents, labels, alive) * (-1 if recipe.targeted else 1)
    return Tape(image, labels, points, gradients * climbs[..., None, None, None], counts, final, logits, loss)


def read_loss(cotangents: Array, logits: Array, labels: Array, targeted: bool) -> Loss:
    """Find the cross-entropy, its label and its scale, that gives these cotangents at these logits; all (T, N, ...).

    Near certainty several labels fit. The attack's own label comes first, climbed (or, in a targeted attack,
    descended), then all others.
    """
    classes = logits.shape[-1]
    usual = np.broadcast_to(labels, logits.shape[:-1])
    every = [np.full(usual.shape, k) for k in range(classes)] if classes <= 100 else []
    options = [(usual, 1.0), *([(usual, -1.0)] if targeted else []), *((k, 1.0) for k in every), (usual, -1.0)]
    options += [(k, -1.0) for k in every]
    label, scale, size = np.full(usual.shape, -1), np.ones(usual.shape), np.zeros(usual.shape)
    error, settled = np.full(usual.shape, np.inf), np.zeros(usual.shape, bool)
    for option, sign in options:
        shares, doubt = _shares(logits, option)
        factor = np.maximum(0.0, sign * (cotangents * shares).sum(axis=-1) / (shares**2).sum(axis=-1))
        off = np.abs(cotangents - sign * factor[..., None] * shares).max(axis=-1)
        # what rounds off near certainty is absolute: shares are differences from 1
        exact = off <= np.maximum(3e-7, 1e-5 * factor)
        relative = np.where(factor > 0, off / np.maximum(factor, 1e-30), np.inf)
        better = ~settled & (exact | (relative < error / 2))
        label, error = np.where(better, option, label), np.where(better, np.where(exact, 0.0, relative), error)
        # of a loss that vanished the scale can't be read: 1 is as good as any
        whole = np.where(factor > 0, sign * factor / np.maximum(doubt, 1e-300), sign)
        scale, size = np.where(better, whole, scale), np.where(better, doubt, size)
        settled |= exact
    own = np.take_along_axis(cotangents, np.maximum(label, 0)[..., None], axis=-1)[..., 0]
    rest = cotangents.sum(axis=-1) - own
    exact = np.abs(own + rest) <= 1e-3 * np.abs(rest)
    clear = (size > 1e-2) & (label >= 0)
    if clear.any():  # of a loss that vanished the sign can't be read either, but a library has one sign
        scale = np.where(clear, scale, np.sign(np.median(scale[clear])) * np.abs(scale))
    # a loss computed in float16 leaves nothing but float16's numbers, far from the true ones near certainty
    half = (rounded(cotangents, "float16") == cotangents).all(axis=-1)
    label = np.where(error < 5e-3, label, np.where(half, usual, -1))
    return Loss(label, scale, error, exact, size)


def _unless_margin(loss: Loss, cotangents: Array, logits: Array, labels: Array, alive: Array) -> Loss:
    """The loss, marked as a margin where every cotangent is one multiple of the margin's.

    Where a single class rivals the label, a cross-entropy and a margin look alike, but a cross-entropy's scale varies.
    """
    if not alive.any():
        return loss
    whole = np.abs(loss.scale[alive])
    if (loss.label[alive] >= 0).all() and (whole.max() <= 1.001 * whole.min() or logits.shape[-1] == 2):
        return loss
    own = np.take_along_axis(cotangents, np.broadcast_to(labels, alive.shape)[..., None], axis=-1)
    size = float(np.median(np.abs(own[alive])))
    sign = -np.sign(np.median(own[alive]))
    off = np.abs(cotangents - sign * size * margin_shares(logits, np.broadcast_to(labels, alive.shape))).max(axis=-1)
    # of rivals that tie, any may be the highest
    if not size or (off[alive] > 1e-5 * size).mean() > 0.05:
        return loss
    return replace(loss, label=np.full_like(loss.label, -1), scale=np.full_like(loss.scale, sign * size), margin=True)


def _climbs(loss: Loss, cotangents: Array, labels: Array, alive: Array) -> Array:
    """1 where the recorded gradient is that of a loss that grows as the label is lost, else -1."""
    signs = np.sign(loss.scale)
    unread = alive & (loss.label < 0)
    own = np.take_along_axis(cotangents, np.broadcast_to(labels, alive.shape)[..., None], axis=-1)[..., 0]
    if unread.any():  # a loss that is no cross-entropy still has one sign: it pushes the label's logit down or up
        signs = np.where(unread, -np.sign(own[unread].sum()) or 1.0, signs)
    return np.asarray(signs)


def _shares(logits: Array, labels: Array) -> tuple[Array, Array]:
    """The cross-entropy's derivative in the logits, divided by 1 - p of the label, and 1 - p; without cancellation."""
    wide = logits.astype(np.float64)
    own = np.take_along_axis(wide, labels[..., None], axis=-1)[..., 0]
    is_label = np.arange(logits.shape[-1]) == labels[..., None]
    others = np.where(is_label, -np.inf, wide)
    shares = np.where(is_label, -1.0, softmax(others, axis=-1))
    top = others.max(axis=-1)
    gap = own - top - np.log(np.exp(others - top[..., None]).sum(axis=-1))
    return shares, np.asarray(1 / (1 + np.exp(np.clip(gap, -700, 700))))


@dataclass(frozen=True)
class Replay:
    """A recomputed tape. ``wrong``: the number of pixels that differ, by step and image, (T + 1, N).

    The last row is the returned image. ``largest`` is the largest difference of a pixel.
    """

    wrong: Array
    largest: float
    ends: Array
    """each image's last iterate, returned or not, (N, C, H, W)"""

    @property
    def score(self) -> int:
        """The number of pixels that the habits don't explain; a missing step counts as a whole image."""
        return int(self.wrong.sum())


def replay(tape: Tape, recipe: Recipe, habits: Habits) -> Replay:
    """Recompute every step of the tape under these habits."""
    steps, n = len(tape.points), len(tape.image)
    sizes = step_sizes(steps, recipe, habits)
    wrong, largest = np.zeros((steps + 1, n)), 0.0
    momentum = np.zeros(tape.image.shape)
    count = recipe.steps + habits.steps
    frozen = _frozen(tape, recipe, habits)
    ends = np.array(tape.points[0] if steps else tape.image)
    for index in range(steps):
        own = tape.points[index] - (look_ahead(np.zeros_like(momentum), momentum, sizes[index], recipe, habits))
        before, momentum = momentum, accumulate(tape.gradients[index], momentum, recipe, habits)
        unsure = _unsure(tape.gradients[index], before, momentum, recipe, habits)
        move = sizes[index] * direction(momentum, recipe, habits)
        last = index == tape.counts - 1
        own = tape.image if index == 0 and habits.leads_from == "image" else own
        moved = advance(own, tape.image, move, recipe, habits)
        if habits.last_order is not None:
            ending = advance(own, tape.image, move, recipe, habits, last=True)
            # an image that stopped before all its steps never had the last one
            moved = np.where((last & (tape.counts == count))[:, None, None, None], ending, moved)
        moved = np.where(frozen[index][:, None, None, None], own, moved)
        ends = np.where((index < tape.counts)[:, None, None, None], moved, ends)
        if index + 1 < steps:
            following = look_ahead(moved, momentum, sizes[index + 1], recipe, habits)
            off = _off(following, tape.points[index + 1], habits, habits.where in ("iterate", "query"))
            off = np.where(unsure, 0.0, off)
            going = (index + 1 < tape.counts) & np.isfinite(off).all(axis=(1, 2, 3))
            wrong[index] += np.where(going, (off > 0).sum(axis=(1, 2, 3)), 0)
            largest = max(largest, float(off[going].max(initial=0)))
    finals = _finals(tape, recipe, habits, ends)
    off = _off(finals, tape.final, habits, habits.where in ("iterate", "output"))
    if habits.grid and habits.where == "query":  # its last point is known to within the rounding of the query
        off = np.where(off > 1.02 * spacing(np.maximum(np.abs(finals), 0.25), habits.grid) + CLOSE, off, 0.0)
    if steps and habits.returns == "last":
        off = np.where(unsure, 0.0, off)
    wrong[-1] = (off > 0).sum(axis=(1, 2, 3))
    # a step too few or too many is as bad as an image that is wrong throughout
    wrong[-1] += tape.image[0].size * _miscounted(tape, count, frozen)
    return Replay(wrong, max(largest, float(off.max(initial=0))), ends)


def _off(expected: Array, actual: Array, habits: Habits, on_grid: bool) -> Array:
    """How far recorded pixels are from the expected ones, 0 where rounding explains it."""
    if habits.grid is None or habits.where in ("gradient", "sum") or not on_grid:
        off = np.abs(expected - actual)
        return np.where(off > CLOSE, off, 0.0)
    near = rounded(actual, habits.grid)
    unit = spacing(np.maximum(np.maximum(np.abs(expected), np.abs(actual)), 0.25), habits.grid)
    # float16's own arithmetic rounds after each of its operations; a byte is rounded once
    slack = {"float16": 3.0, "bfloat16": 3.0, "bytes": 0.5, "bytes, cut off": 1.0}[habits.grid]
    off = np.abs(expected - actual)
    if habits.where == "output" and habits.grid in ("float16", "bfloat16"):
        slack = 0.5
    if habits.where == "query":
        slack = 2.0  # a step may lead from coarser numbers to finer ones
    return np.where((np.abs(near - actual) > 2e-6) | (off > slack * unit + CLOSE), off, 0.0)


def _unsure(gradient: Array, before: Array, momentum: Array, recipe: Recipe, habits: Habits) -> npt.NDArray[np.bool_]:
    """Pixels whose direction is noise: two terms of the momentum cancel, or the gradient is too small for the grid."""
    smallest = 1e-7 if habits.grid == "float16" and habits.where in ("iterate", "query") else 1e-37
    unsure = (gradient != 0) & (np.abs(gradient) < smallest)
    if recipe.decay is not None:
        unsure |= (momentum != 0) & (np.abs(momentum) < 1e-5 * np.abs(recipe.decay * before))
    return np.asarray(unsure)


def _frozen(tape: Tape, recipe: Recipe, habits: Habits) -> Array:
    """Which image has stopped at which step, (T + 1, N); the last row is the returned image."""
    steps, n = len(tape.points) + 1, len(tape.image)
    ends = np.zeros((steps, n), bool)
    if habits.early_stop == "no progress":
        loss = cross_entropy(tape.logits, np.broadcast_to(tape.labels, (steps, n)))
        ends[1:] = loss[1:] >= loss[:-1] if recipe.targeted else loss[1:] <= loss[:-1]
    elif habits.early_stop != "never":
        ends = done(tape.logits, tape.labels, recipe.targeted)
        ends[0] &= habits.early_stop == "before a step"
    return np.asarray(np.maximum.accumulate(ends, axis=0))


def _miscounted(tape: Tape, count: int, frozen: Array) -> Array:
    """How many gradient queries each image has too many or too few under the habits, (N,)."""
    ends = np.where(frozen.any(axis=0), frozen.argmax(axis=0), count)
    # a library that masks stopped images goes on with the queries, without moving them
    return np.asarray(np.where(tape.counts == count, 0, np.abs(tape.counts - ends)))


def _finals(tape: Tape, recipe: Recipe, habits: Habits, ends: Array) -> Array:
    if habits.returns == "last":
        return ends
    if not len(tape.points):
        return tape.image
    # libraries differ in which iterate is the best; it is one of the visited points
    visited = np.concatenate([tape.points, tape.image[None], ends[None]])
    far = np.abs(visited - tape.final[None]).max(axis=(2, 3, 4))
    return np.asarray(visited[far.argmin(axis=0), np.arange(len(tape.image))])


def options(tape: Tape, recipe: Recipe, habits: Habits) -> Iterator[Habits]:
    """Yield the habits with one changed, each to values that the tape suggests and to those of other libraries."""
    if len(tape.points) and np.abs(tape.points[0] - tape.image).max() > CLOSE:
        yield replace(habits, leads_from="image")
    for value in _steps(tape, recipe, habits):
        yield replace(habits, step=value)
        if recipe.attack == "ni-fgsm":
            yield replace(habits, step=value, ahead=1.0)
    yield from (replace(habits, steps=value) for value in sorted({int(c) - recipe.steps for c in tape.counts}))
    for stop in ("before a step", "after a step", "no progress", "never"):
        yield replace(habits, early_stop=stop)
    yield from (replace(habits, returns=what) for what in ("best", "last"))
    yield from (replace(habits, sign_of_zero=value) for value in (1.0, -1.0, 0.0))
    for order in ORDERS:
        yield replace(habits, order=order)
        yield replace(habits, order=order, last_order=("step", "project", "box"))
        yield replace(habits, order=order, last_order=("step", "box"))
        yield replace(habits, order=order, last_order=("step", "project"))
        yield replace(habits, order=order, last_order=("step",))
    yield from (replace(habits, budget=value) for value in _budgets(tape, recipe))
    yield from (replace(habits, bounds=value) for value in _bounds(tape))
    for grid in GRIDS:
        for where in ("iterate", "query", "output", "gradient", "sum"):
            yield replace(habits, grid=grid, where=where)
    for way in WAYS:
        yield replace(habits, way=way)
    if recipe.norm == "l2":
        yield from (replace(habits, floor=floor) for floor in ("none", "plus 1e-10", "at least 1e-12"))
    if recipe.decay is not None:
        for kind in ("of gradients", "by their mean", "of signs", "unscaled", "none"):
            yield replace(habits, momentum=kind)
        yield from (replace(habits, decay=value) for value in (1.0, 0.0, 0.5, 0.8, 0.9, 0.95, 0.99, 1.1, 1.5, 2.0))
        if recipe.attack == "ni-fgsm":
            yield from (replace(habits, looks_ahead=value) for value in (True, False))


def _orders() -> tuple[tuple[Operation, ...], ...]:
    names: tuple[Operation, ...] = ("step", "project", "box")
    return tuple(order for count in (3, 2, 1) for order in permutations(names, count) if "step" in order)


ORDERS = _orders()
"""Every order of the step, the projection and the clip, also without the projection, the clip or both."""


def _steps(tape: Tape, recipe: Recipe, habits: Habits) -> list[float | tuple[float, ...]]:
    """Steps read off how far pixels moved along the direction, then the usual ones; the unit is the requested step."""
    following = np.concatenate([tape.points[1:], tape.final[None]])
    momentum = np.zeros(tape.image.shape)
    medians: list[float] = []
    free: dict[int, float] = {}
    measured_steps: list[float] = []
    for index in range(len(tape.points)):
        momentum = accumulate(tape.gradients[index], momentum, recipe, habits)
        along = direction(momentum, recipe, replace(habits, sign_of_zero=0.0, grid=None))
        ending = np.asarray(tape.counts - 1 == index)
        after = np.where(ending[:, None, None, None], tape.final, following[index])
        moves = after - tape.points[index]
        if recipe.attack == "ni-fgsm":  # only the first gradient is taken where the image is
            moves = moves / (1 + (recipe.decay or 0) * np.abs(momentum)) if index == 0 else moves * 0
        use = (np.abs(along) > 0.3 * np.abs(along).max(axis=(1, 2, 3), keepdims=True)) & (np.abs(moves) > 1e-7)
        use &= (index < tape.counts)[:, None, None, None]
        inside = use & (after > 1e-6) & (after < 1 - 1e-6)
        change = after - tape.image
        far = np.abs(change) if recipe.norm == "linf" else length(change)
        within = inside & (far < recipe.eps * habits.budget - 1e-6)  # neither clipped nor projected
        inside = within if within.any() else inside
        ratios = (moves[inside] / along[inside] if inside.any() else moves[use] / along[use]) / recipe.eps_step
        if within.any():
            free[index] = float(np.median(ratios))
        if len(ratios):
            medians.append(float(np.median(ratios)))
            if index == 0:
                measured_steps += [float(np.median(ratios)), float(ratios.max())]
        else:
            medians.append(1.0)
    measured_steps += [float(np.median(medians))] if medians else []
    usual = [recipe.eps / recipe.steps, 2.5 * recipe.eps / recipe.steps, recipe.eps, 1 / 255, 2 / 255, 2.5 * recipe.eps]
    neat = [float(f"{value:.3g}") for value in measured_steps]
    single = [1.0, *neat, *measured_steps, *(value / recipe.eps_step for value in usual), 0.5, 2.0, -1.0]
    several = [tuple(float(f"{value:.4g}") for value in medians), tuple(medians)] if len(medians) > 1 else []
    several += _sequences(free, len(tape.points))
    return [*dict.fromkeys(value for value in single if value), *dict.fromkeys(several)]


def _sequences(free: dict[int, float], steps: int) -> list[tuple[float, ...]]:
    """Steps that change from one to the next: any lengths, or a decay.

    ``free``: index of a step that neither the ball nor the box cut short -> its length.
    """
    indices = np.array(sorted(free))
    sizes = np.array([free[index] for index in indices])
    if len(indices) < 2 or np.ptp(sizes) < 1e-4 * np.abs(sizes).max():
        return []
    sequences = [np.interp(np.arange(steps), indices, sizes)]
    if (sizes > 0).all():
        factor = (sizes[1] / sizes[0]) ** (1 / (indices[1] - indices[0]))
        decays = [float(f"{factor:.3g}"), factor]
        sequences = [sizes[0] * decay ** (np.arange(steps) - indices[0]) for decay in decays] + sequences
    neat = [tuple(float(f"{value:.6g}") for value in sequence) for sequence in sequences]
    return [*neat, *(tuple(float(value) for value in sequence) for sequence in sequences)]


def _budgets(tape: Tape, recipe: Recipe) -> list[float]:
    visited = np.concatenate([tape.points, tape.final[None]]) - tape.image
    sizes = np.abs(visited) if recipe.norm == "linf" else length(visited)
    largest = float(np.nanmax(sizes)) / recipe.eps
    return [1.0, float(f"{largest:.3g}"), largest, 0.5, 2.0]


def _bounds(tape: Tape) -> list[tuple[float, float]]:
    visited = np.concatenate([tape.points, tape.final[None]])
    low, high = float(np.nanmin(visited)), float(np.nanmax(visited))
    image = (float(tape.image.min()), float(tape.image.max()))
    return [(0.0, 1.0), (low, high), (0.0, high), (low, 1.0), (-1.0, 1.0), image]


def changed(a: Habits, b: Habits) -> tuple[str, ...]:
    """The names of the habits in which two differ."""
    return tuple(field.name for field in fields(a) if getattr(a, field.name) != getattr(b, field.name))


@dataclass(frozen=True)
class Fit:
    """The habits that explain a tape best, what they leave unexplained, and other habits that explain it as well."""

    habits: Habits
    left: Replay
    as_well: tuple[Habits, ...] = ()


def fit(tape: Tape, recipe: Recipe, habits: Habits, most: int = 3) -> Fit:
    """Find the habits that recompute the tape: ``habits`` with up to ``most`` changes, one after another.

    What the tape doesn't show stays as it is in ``habits``.
    """
    current = Fit(habits, replay(tape, recipe, habits))
    for _ in range(most):
        if not current.left.score:
            break
        replays = [
            (option, replay(tape, recipe, option))
            for option in dict.fromkeys(options(tape, recipe, current.habits))
            if option != current.habits
        ]
        replays.sort(key=lambda item: item[1].score)  # stable: of equals, the first comes first
        best = replays[0]
        if best[1].score >= current.left.score:
            break
        as_well = tuple(option for option, left in replays[1:] if left.score == best[1].score == 0)
        current = Fit(best[0], best[1], as_well)
    return current
