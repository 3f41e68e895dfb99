"""A library's recorded gradient attack, recomputed step by step under supposed habits, and the habits that explain it.

Every step is recomputed from the library's own point and the library's own gradient, so that rounding doesn't add up,
and a sign that is noise on this model is the same noise here. What the recomputation doesn't give is a difference of
the rule itself: the step, the projection, the clip, the sign of zero, the stop, what is returned, or the arithmetic.
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
"""What float32 may add to one step."""
WAYS: tuple[Way, ...] = ("usual", "over its largest", "of length 1", "as it is")
GRIDS: tuple[Grid, ...] = ("float16", "bytes", "bytes, cut off", "bfloat16")


@dataclass(frozen=True)
class Loss:
    """What the cotangents of one library tell about its loss; each array (T, N).

    ``label``: whose cross-entropy it is, -1 where it is none. ``scale``: what it is multiplied with (-1: descended).
    ``exact``: the own logit's share is that of float64, not rounded to a multiple of float32's spacing at 1; ``size``:
    the largest share, 0 near certainty, where neither label nor scale can be read. ``margin``: all of it is one
    multiple of the labels' margin, and no cross-entropy; then ``label`` is -1.
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

    ``image``, ``final``: (N, C, H, W); ``points``, ``gradients`` (of the loss that is climbed): (T, N, C, H, W);
    ``counts``: gradients asked for, (N,); ``logits``: (T + 1, N, classes), at the points and at the final image.
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
        """Which images still ask at which step, (T, N)."""
        return np.asarray(np.arange(len(self.points))[:, None] < self.counts[None])


def tape(trace: Trace, classifier: Classifier, recipe: Recipe) -> Tape:
    """The tape of a trace, with logits at every point. An image without a gradient query has a count of 0."""
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
    """Whose cross-entropy gives these cotangents by the logits, and at which scale. All (T, N, ...).

    Near certainty several labels would do: the first that does of the label given, climbed (or, of a targeted attack,
    descended), and all others.
    """
    classes = logits.shape[-1]
    usual = np.broadcast_to(labels, logits.shape[:-1])
    every = [np.full(usual.shape, k) for k in range(classes)] if classes <= 100 else []
    tried = [(usual, 1.0), *([(usual, -1.0)] if targeted else []), *((k, 1.0) for k in every), (usual, -1.0)]
    tried += [(k, -1.0) for k in every]
    label, scale, size = np.full(usual.shape, -1), np.ones(usual.shape), np.zeros(usual.shape)
    error, settled = np.full(usual.shape, np.inf), np.zeros(usual.shape, bool)
    for whose, sign in tried:
        shares, doubt = _shares(logits, whose)
        factor = np.maximum(0.0, sign * (cotangents * shares).sum(axis=-1) / (shares**2).sum(axis=-1))
        off = np.abs(cotangents - sign * factor[..., None] * shares).max(axis=-1)
        # what rounds off near certainty is absolute: shares are differences from 1
        exact = off <= np.maximum(3e-7, 1e-5 * factor)
        relative = np.where(factor > 0, off / np.maximum(factor, 1e-30), np.inf)
        better = ~settled & (exact | (relative < error / 2))
        label, error = np.where(better, whose, label), np.where(better, np.where(exact, 0.0, relative), error)
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
    """The loss, or, where every query asks for one multiple of the margin, that it is one.

    Where a single class rivals the label both look alike, but for their scale: a cross-entropy's varies.
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
    # of rivals that tie, any may be the best
    if not size or (off[alive] > 1e-5 * size).mean() > 0.05:
        return loss
    return replace(loss, label=np.full_like(loss.label, -1), scale=np.full_like(loss.scale, sign * size), margin=True)


def _climbs(loss: Loss, cotangents: Array, labels: Array, alive: Array) -> Array:
    """1 where the recorded gradient is of a loss that grows as the label is lost, else -1."""
    signs = np.sign(loss.scale)
    unknown = alive & (loss.label < 0)
    own = np.take_along_axis(cotangents, np.broadcast_to(labels, alive.shape)[..., None], axis=-1)[..., 0]
    if unknown.any():  # what is no cross-entropy still has one sign: it pushes the label's logit down or up
        signs = np.where(unknown, -np.sign(own[unknown].sum()) or 1.0, signs)
    return np.asarray(signs)


def _shares(logits: Array, whose: Array) -> tuple[Array, Array]:
    """The cross-entropy's derivative in the logits, divided by 1 - p of the label, and 1 - p; without cancellation."""
    wide = logits.astype(np.float64)
    own = np.take_along_axis(wide, whose[..., None], axis=-1)[..., 0]
    mine = np.arange(logits.shape[-1]) == whose[..., None]
    others = np.where(mine, -np.inf, wide)
    shares = np.where(mine, -1.0, softmax(others, axis=-1))
    top = others.max(axis=-1)
    gap = own - top - np.log(np.exp(others - top[..., None]).sum(axis=-1))
    return shares, np.asarray(1 / (1 + np.exp(np.clip(gap, -700, 700))))


@dataclass(frozen=True)
class Replay:
    """What recomputing gave: pixels that differ, by step and image, (T + 1, N); the last row is the returned image."""

    wrong: Array
    largest: float
    ends: Array
    """each image's last iterate, returned or not, (N, C, H, W)"""

    @property
    def score(self) -> int:
        """Pixels and missing steps that the habits don't explain."""
        return int(self.wrong.sum())


def replay(tape: Tape, recipe: Recipe, habits: Habits) -> Replay:
    """Recompute every step of the tape under these habits."""
    steps, n = len(tape.points), len(tape.image)
    sizes = step_sizes(steps, recipe, habits)
    wrong, largest = np.zeros((steps + 1, n)), 0.0
    momentum = np.zeros(tape.image.shape)
    asked = recipe.steps + habits.steps
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
            moved = np.where((last & (tape.counts == asked))[:, None, None, None], ending, moved)
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
    # a step that is missing, or one too many, is as bad as an image that is wrong throughout
    wrong[-1] += tape.image[0].size * _miscounted(tape, habits, asked, frozen)
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
    """Pixels whose direction is rounding: what is left of two terms that cancel, or what the arithmetic can't hold."""
    smallest = 1e-7 if habits.grid == "float16" and habits.where in ("iterate", "query") else 1e-37
    found = (gradient != 0) & (np.abs(gradient) < smallest)
    if recipe.decay is not None:
        found |= (momentum != 0) & (np.abs(momentum) < 1e-5 * np.abs(recipe.decay * before))
    return np.asarray(found)


def _frozen(tape: Tape, recipe: Recipe, habits: Habits) -> Array:
    """Which image has stopped at which step, and where it ended, (T + 1, N)."""
    steps, n = len(tape.points) + 1, len(tape.image)
    ends = np.zeros((steps, n), bool)
    if habits.early_stop == "no progress":
        loss = cross_entropy(tape.logits, np.broadcast_to(tape.labels, (steps, n)))
        ends[1:] = loss[1:] >= loss[:-1] if recipe.targeted else loss[1:] <= loss[:-1]
    elif habits.early_stop != "never":
        ends = done(tape.logits, tape.labels, recipe.targeted)
        ends[0] &= habits.early_stop == "before a step"
    return np.asarray(np.maximum.accumulate(ends, axis=0))


def _miscounted(tape: Tape, habits: Habits, asked: int, frozen: Array) -> Array:
    """How many gradients each image asked for beside those that the habits let it ask for."""
    ends = np.where(frozen.any(axis=0), frozen.argmax(axis=0), asked)
    # beyond its last point an image's row repeats where it ended; a mask lets it ask on without moving
    return np.asarray(np.where(tape.counts == asked, 0, np.abs(tape.counts - ends)))


def _finals(tape: Tape, recipe: Recipe, habits: Habits, ends: Array) -> Array:
    if habits.returns == "last":
        return ends
    if not len(tape.points):
        return tape.image
    # which one counts as the best differs; it is one that was visited, and no worse than the last
    visited = np.concatenate([tape.points, tape.image[None], ends[None]])
    far = np.abs(visited - tape.final[None]).max(axis=(2, 3, 4))
    return np.asarray(visited[far.argmin(axis=0), np.arange(len(tape.image))])


def measured(tape: Tape, recipe: Recipe, habits: Habits) -> Iterator[Habits]:
    """The habits with one of them changed, each to values that the tape suggests or that are known elsewhere."""
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
    found = [order for count in (3, 2, 1) for order in permutations(names, count) if "step" in order]
    return tuple(found)


ORDERS = _orders()
"""Every order of a step, the projection and the clip, and what is left when one of them is missing."""


def _steps(tape: Tape, recipe: Recipe, habits: Habits) -> list[float | tuple[float, ...]]:
    """The step, in units of the one asked for, from how far pixels moved along the direction."""
    following = np.concatenate([tape.points[1:], tape.final[None]])
    momentum = np.zeros(tape.image.shape)
    medians: list[float] = []
    free: dict[int, float] = {}
    found: list[float] = []
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
                found += [float(np.median(ratios)), float(ratios.max())]
        else:
            medians.append(1.0)
    found += [float(np.median(medians))] if medians else []
    usual = [recipe.eps / recipe.steps, 2.5 * recipe.eps / recipe.steps, recipe.eps, 1 / 255, 2 / 255, 2.5 * recipe.eps]
    neat = [float(f"{value:.3g}") for value in found]
    single = [1.0, *neat, *found, *(value / recipe.eps_step for value in usual), 0.5, 2.0, -1.0]
    several = [tuple(float(f"{value:.4g}") for value in medians), tuple(medians)] if len(medians) > 1 else []
    several += _sequences(free, len(tape.points))
    return [*dict.fromkeys(value for value in single if value), *dict.fromkeys(several)]


def _sequences(free: dict[int, float], steps: int) -> list[tuple[float, ...]]:
    """Steps that change from one to the next, by the lengths of those that nothing cut short: a decay, or any."""
    known = np.array(sorted(free))
    sizes = np.array([free[index] for index in known])
    if len(known) < 2 or np.ptp(sizes) < 1e-4 * np.abs(sizes).max():
        return []
    found = [np.interp(np.arange(steps), known, sizes)]
    if (sizes > 0).all():
        factor = (sizes[1] / sizes[0]) ** (1 / (known[1] - known[0]))
        decays = [float(f"{factor:.3g}"), factor]
        found = [sizes[0] * decay ** (np.arange(steps) - known[0]) for decay in decays] + found
    neat = [tuple(float(f"{value:.6g}") for value in one) for one in found]
    return [*neat, *(tuple(float(value) for value in one) for one in found)]


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
    """The habits that explain a tape best, what they leave unexplained, and others that explain it as well."""

    habits: Habits
    left: Replay
    as_well: tuple[Habits, ...] = ()


def fit(tape: Tape, recipe: Recipe, habits: Habits, most: int = 3) -> Fit:
    """The nearest habits under which the tape is recomputed: none changed, or else up to ``most``, one after another.

    Starts from ``habits``, so that what the tape doesn't show stays as it is there.
    """
    current = Fit(habits, replay(tape, recipe, habits))
    for _ in range(most):
        if not current.left.score:
            break
        tried = [
            (option, replay(tape, recipe, option))
            for option in dict.fromkeys(measured(tape, recipe, current.habits))
            if option != current.habits
        ]
        tried.sort(key=lambda item: item[1].score)  # stable: of equals, the first named
        best = tried[0]
        if best[1].score >= current.left.score:
            break
        as_well = tuple(option for option, left in tried[1:] if left.score == best[1].score == 0)
        current = Fit(best[0], best[1], as_well)
    return current
