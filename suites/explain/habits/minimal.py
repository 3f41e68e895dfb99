"""DeepFool and Carlini-Wagner's attack under habits, and the habits that give a library's images.

With the defaults each is the referee's attack; ``KNOWN`` holds the habits of the libraries. These attacks take no
signs, unlike the gradient attacks in a budget. So a new attack under other habits is a fair comparison.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sparring.adapters.parameters import Params
from sparring.adapters.protocol import Differentiable, Images, Labels
from sparring.suites.explain.habits.gradient import Grid, done, length, margin, rounded
from sparring.suites.explain.habits.trace import Path

Array = npt.NDArray[Any]
Distance = Literal["sum", "mean", "mean in the gradient"]


@dataclass(frozen=True)
class MinimalHabits:
    """The details of an implementation of DeepFool or CW; the defaults are the referee's.

    Factors multiply the requested parameter, numbers of steps are added to it.
    """

    labels: Literal["given", "predicted"] = "given"
    steps: int = 0
    step: float = 1.0
    """a factor: of DeepFool's way to the boundary, or of CW's learning rate"""
    box: Literal["each step", "at the end", "never"] = "each step"
    stops: bool = True
    """whether DeepFool stops at a misclassified image, and CW ends a search that no longer falls, as requested"""
    grid: Grid | None = None
    where: Literal["iterate", "output"] = "output"
    # DeepFool
    overshoot: float | None = None
    """None: the requested one"""
    overshoots: Literal["once", "each step", "the sum"] = "once"
    """when the overshoot comes: once at the end, in each step, or on the sum of all steps"""
    further: float = 0.0
    """added to the distance to the boundary, in logits over the length of their gradient"""
    every_class: bool = False
    """whether every class is a candidate, not just the requested number"""
    # CW
    returns: Literal["best", "last"] = "best"
    inside: float = 0.999999
    """how far out pixels at 0 and 1 start, as a share"""
    distance: Distance = "sum"
    """how the objective combines the squared changes of the pixels"""
    constant: float = 1.0
    """a factor of the first constant c"""
    searches: int = 0
    """added to the number of searches for c"""
    grows: float = 10.0
    """the factor of c after a search without success"""
    confidence: float = 0.0
    """added to the requested confidence"""
    abort: Literal["referee", "foolbox", "torchattacks"] = "referee"
    """the library whose rule says when a search no longer falls"""


KNOWN: dict[str, tuple[MinimalHabits, ...]] = {
    "deepfool": (
        MinimalHabits(),
        MinimalHabits(overshoots="each step", every_class=True),
        MinimalHabits(overshoots="the sum", further=1e-4),
        MinimalHabits(labels="predicted"),
    ),
    "cw": (
        MinimalHabits(),
        MinimalHabits(abort="foolbox"),
        MinimalHabits(abort="torchattacks", inside=1.0, searches=-100),
    ),
}
"""The habits of DeepFool in the referee, torchattacks, Foolbox and ART, and of CW in the referee, Foolbox and
torchattacks."""

SUSPECT = {
    "labels": "label source",
    "steps": "number of steps",
    "step": "step",
    "box": "box clip",
    "stops": "early stop",
    "grid": "dtype",
    "where": "dtype",
    "overshoot": "overshoot",
    "overshoots": "overshoot",
    "further": "overshoot",
    "every_class": "candidates",
    "returns": "best against last iterate",
    "inside": "start",
    "abort": "early stop",
    "distance": "loss reduction",
    "confidence": "loss",
    "constant": "constant c",
    "searches": "constant c",
    "grows": "constant c",
}
MEANS: tuple[Distance, ...] = ("mean", "mean in the gradient")
CLOSE = 1e-5
"""A stand-in gives a library's images when no pixel differs by more."""


def attack(
    name: str,
    classifier: Differentiable,
    x: Images,
    y: Labels,
    params: Params,
    habits: MinimalHabits,
    targeted: bool = False,
) -> Images:
    """Attack by ``deepfool`` or ``cw`` under these habits. x (N, C, H, W), y (N,); returns float32 of x's shape."""
    if not len(x):
        return x.copy()
    if habits.labels == "predicted" and not targeted:
        y = classifier.logits(x).argmax(axis=1).astype(np.int64)
    function: Callable[..., Array] = deepfool if name == "deepfool" else cw
    images = function(classifier, x.astype(np.float64), y, params, habits, targeted)
    return np.asarray(rounded(images, habits.grid) if habits.where == "output" else images, np.float32)


def deepfool(
    classifier: Differentiable, x: Array, y: Labels, params: Params, habits: MinimalHabits, targeted: bool = False
) -> Array:
    """Moosavi-Dezfooli et al. 2016, algorithm 2; the overshoot comes at the end, in every step, or on their sum."""
    overshoot = params["overshoot"] if habits.overshoot is None else habits.overshoot
    count = classifier.classes if habits.every_class else min(params["candidates"], classifier.classes)
    order = np.argsort(-classifier.logits(x.astype(np.float32)), axis=1, kind="stable")
    others = np.array([[k for k in row if k != own][: count - 1] for row, own in zip(order, y, strict=True)])
    current, total = x.copy(), np.zeros_like(x)
    going = np.ones(len(x), bool)
    for _ in range(params["steps"] + habits.steps):
        logits = classifier.logits(current.astype(np.float32)).astype(np.float64)
        if habits.stops:
            going &= ~done(logits, y, False)
        if not going.any():
            break
        way = habits.step * _way(classifier, current, logits, y, others, habits.further)
        total = np.where(_wide(going), total + way, total)
        if habits.overshoots == "each step":
            moved = current + (1 + overshoot) * way
        else:
            moved = x + (1 + overshoot) * total if habits.overshoots == "the sum" else current + way
        moved = np.clip(moved, 0, 1) if habits.box == "each step" else moved
        moved = rounded(moved, habits.grid) if habits.where == "iterate" else moved
        current = np.where(_wide(going), moved, current)
    if habits.overshoots == "once":
        current = x + (1 + overshoot) * (current - x)
    return current if habits.box == "never" else np.asarray(np.clip(current, 0, 1))


def _way(classifier: Differentiable, x: Array, logits: Array, y: Labels, others: Array, further: float) -> Array:
    rows, eye = np.arange(len(x)), np.eye(logits.shape[1])
    nearest, way = np.full(len(x), np.inf), np.zeros_like(x)
    for k in others.T:
        slope = classifier.vjp(x.astype(np.float32), (eye[k] - eye[y]).astype(np.float32)).astype(np.float64)
        size = length(slope)[:, 0, 0, 0]
        far = np.abs(logits[rows, k] - logits[rows, y]) / np.where(size > 0, size, 1e-300)
        closer = far < nearest
        nearest = np.where(closer, far, nearest)
        unit = slope / _wide(np.where(size > 0, size, np.inf))
        way = np.where(_wide(closer), _wide(far + further) * unit, way)
    return way


def _wide(values: Array) -> Array:
    return np.asarray(values[:, None, None, None])


def cw(
    classifier: Differentiable, x: Array, y: Labels, params: Params, habits: MinimalHabits, targeted: bool = False
) -> Array:
    """Carlini, Wagner 2017, section VI.A, with a constant c for each image."""
    best, nearest = x.copy(), np.full(len(x), np.inf)
    c = np.full(len(x), params["initial_const"] * habits.constant)
    low, high = np.zeros(len(x)), np.full(len(x), np.inf)
    for _ in range(max(1, params["search_steps"] + habits.searches)):
        images, size = _search(classifier, x, y, params, habits, c, targeted)
        succeeded = size < np.inf
        closer = (size < nearest) | (habits.returns == "last")
        best, nearest = np.where(_wide(closer), images, best), np.where(closer, size, nearest)
        low, high = np.where(succeeded, low, c), np.where(succeeded, c, high)
        c = np.where(high < np.inf, (low + high) / 2, habits.grows * c)
    return best


def _search(
    classifier: Differentiable, x: Array, y: Labels, params: Params, habits: MinimalHabits, c: Array, targeted: bool
) -> tuple[Array, Array]:
    """Search with one c: the nearest adversarial image, or the last image, and its squared distance, else infinity."""
    steps, rate = params["steps"] + habits.steps, params["learning_rate"] * habits.step
    kappa, eye = params["confidence"] + habits.confidence, np.eye(classifier.classes)
    with np.errstate(divide="ignore", invalid="ignore"):
        w = np.arctanh(habits.inside * (2 * x - 1))
    m, v = np.zeros_like(x), np.zeros_like(x)
    best, nearest, last = x.copy(), np.full(len(x), np.inf), x.copy()
    going, before = np.ones(len(x), bool), np.full(len(x), np.inf)
    tenth = params["steps"] / 10
    every = int(np.ceil(tenth)) if habits.abort == "foolbox" else max(int(tenth), 1)
    scale, weight = (1 / x[0].size if habits.distance in rules else 1.0 for rules in (("mean",), MEANS))
    for t in range(steps):
        current = (np.tanh(w) + 1) / 2
        if habits.grid and habits.where == "iterate":
            current = rounded(current, habits.grid)
        last = np.where(_wide(going), current, last)
        logits = classifier.logits(current.astype(np.float32)).astype(np.float64)
        gap = margin(logits, y) * (-1 if targeted else 1)
        far = length(current - x)[:, 0, 0, 0] ** 2
        objective = scale * far + c * np.maximum(gap, -kappa)
        aborting = np.zeros(len(x), bool)
        if params["abort_early"] and habits.stops and t % every == 0:
            limit = before if habits.abort == "torchattacks" else 0.9999 * before
            aborting = ~(objective <= limit)
            before = objective
        counts = going & (gap < -kappa) & (far < nearest) & ~(aborting & (habits.abort == "foolbox"))
        best, nearest = np.where(_wide(counts), current, best), np.where(counts, far, nearest)
        going &= ~aborting
        if not going.any():
            break
        others = np.where(np.arange(logits.shape[1]) == y[:, None], -np.inf, logits).argmax(axis=1)
        cotangent = (eye[y] - eye[others]) * (-1 if targeted else 1) * (gap > -kappa)[:, None]
        slope = classifier.vjp(current.astype(np.float32), (c[:, None] * cotangent).astype(np.float32))
        gradient = (slope + 2 * weight * (current - x)) * 2 * current * (1 - current)
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        with np.errstate(invalid="ignore"):
            w = w - rate * (m / (1 - 0.9 ** (t + 1))) / (np.sqrt(v / (1 - 0.999 ** (t + 1))) + 1e-8)
    return (last if habits.returns == "last" else best), nearest


def options(
    name: str, params: Params, paths: tuple[Path, ...], classifier: Differentiable, habits: MinimalHabits
) -> Iterator[MinimalHabits]:
    """Yield the habits with one changed, each to values that the paths suggest and to those of other libraries."""
    yield replace(habits, labels="predicted" if habits.labels == "given" else "given")
    for grid in ("bytes", "float16", "bytes, cut off", "bfloat16"):
        for where in ("output", "iterate"):
            yield replace(habits, grid=grid, where=where)
    counts = {len(path.points) for path in paths}
    most = max(counts)
    if name == "deepfool":
        for value in _overshoots(params, paths, classifier, habits):
            yield replace(habits, overshoot=value)
        for how in ("once", "each step", "the sum"):
            yield replace(habits, overshoots=how)
        yield from (replace(habits, further=value) for value in (0.0, 1e-4, 1e-6))
        yield from (replace(habits, steps=value - params["steps"]) for value in range(1, min(most + 3, 12)))
        yield replace(habits, steps=-1)
        yield from (replace(habits, box=box) for box in ("at the end", "never", "each step"))
        yield replace(habits, stops=not habits.stops)
        yield replace(habits, every_class=not habits.every_class)
        if habits.overshoots == "once":
            yield from (replace(habits, step=value) for value in (0.5, 0.9, 1.02, 1.05, 1.1, 1.2, 2.0))
        return
    for value in _rates(params, paths, habits):
        yield replace(habits, step=value)
    yield replace(habits, returns="last" if habits.returns == "best" else "best")
    distances: tuple[Distance, ...] = (*MEANS, "sum")
    yield from (replace(habits, distance=how) for how in distances)
    yield replace(habits, stops=not habits.stops)
    yield from (replace(habits, abort=rule) for rule in ("referee", "foolbox", "torchattacks"))
    yield from (replace(habits, inside=value) for value in (0.999999, 1.0, 1 - 1e-7, 0.99999, 0.9999, 0.999, 0.99))
    yield from (replace(habits, steps=value) for value in _lengths(params, paths))
    yield from (replace(habits, constant=value) for value in _constants(params, paths))
    yield from (replace(habits, searches=value) for value in (0, -1, 1, 1 - params["search_steps"]))
    yield from (replace(habits, grows=value) for value in (10.0, 2.0, 5.0, 100.0))
    yield from (replace(habits, confidence=value) for value in (0.0, 0.1, 1.0, 5.0))


def goes_on(stopping: tuple[Path, ...], going: tuple[Path, ...], classifier: Differentiable) -> float | None:
    """How far the shared points of two libraries are apart, max |Δ|, if only the second one goes on after success.

    That is, the first ended at its first misclassified point, and the second visited the same points and went on.
    None where they differ in anything else, or in nothing. DeepFool's rule is to end there, with however many steps.
    """
    widest, further = 0.0, False
    for one, two in zip(stopping, going, strict=True):
        ways = one.points, two.points
        shared = min(map(len, ways))
        if not shared or len(ways[0]) > len(ways[1]):
            return None
        left = spread(np.stack(ways[0][:shared]), np.stack(ways[1][:shared]))
        if len(ways[0]) < len(ways[1]) or spread(one.final, two.final) > CLOSE:
            logits = classifier.logits(np.stack(ways[0])).astype(np.float64)
            if not any(_crosses_at_the_end(logits, label) for label in (one.label, int(logits[0].argmax()))):
                return None
            further |= len(ways[0]) < len(ways[1])  # else the overshoot may explain the different ends
        widest = max(widest, left)
    return widest if further and widest <= CLOSE else None


def _crosses_at_the_end(logits: Array, label: int) -> bool:
    """Whether only the last point of a path is misclassified, within rounding; logits (points, classes)."""
    gap = margin(logits, np.full(len(logits), label))
    rounding = CLOSE * (1 + np.abs(logits).max())
    return bool((gap[:-1] >= -rounding).all() and gap[-1] <= rounding)


def _neat(values: list[float]) -> list[float]:
    return [*dict.fromkeys([*(float(f"{value:.3g}") for value in values), *values])]


def _overshoots(
    params: Params, paths: tuple[Path, ...], classifier: Differentiable, habits: MinimalHabits
) -> list[float]:
    """Overshoots read off the last move (if there is one overshoot) and off the first, then the usual ones.

    The unit is the way to the boundary.
    """
    ratios: list[float] = []
    for path in paths:
        points = path.points
        if len(points) > 1:
            last, way = path.final.astype(float) - path.image, points[-1].astype(float) - path.image
            ratios.append(_ratio(last, way, path.final) - 1)
            x, y = path.image[None], np.array([path.label])
            one = replace(habits, overshoots="once", overshoot=0.0, steps=1 - params["steps"], step=1.0)
            first = attack("deepfool", classifier, x, y, params, one)[0].astype(float) - path.image
            ratios.append(_ratio(points[1].astype(float) - path.image, first, points[1]) - 1)
    medians = [float(np.median(ratios[start::2])) for start in (0, 1) if ratios[start::2]]
    return [value for value in [*_neat(medians), 0.0, 0.02, 1e-6, 0.05, 0.1] if value > -1]


def _ratio(a: Array, b: Array, where: Array) -> float:
    use = (np.abs(b) > 0.2 * np.abs(b).max()) & (where > 1e-6) & (where < 1 - 1e-6) & (b != 0)
    return float(np.median(a[use] / b[use])) if use.any() else 1.0


def _rates(params: Params, paths: tuple[Path, ...], habits: MinimalHabits) -> list[float]:
    """Factors of the learning rate: Adam's first step is that rate in every pixel whose gradient isn't zero."""
    rates = []
    for path in paths:
        points = path.points
        if len(points) > 1:
            inside = (points[0] > 0.01) & (points[0] < 0.99)
            moves = np.abs(np.arctanh(2.0 * points[1][inside] - 1) - np.arctanh(2.0 * points[0][inside] - 1))
            moves = moves[np.isfinite(moves)]
            if moves.max(initial=0) > 0:
                rates.append(float(np.median(moves[moves > 0.3 * moves.max()])) / params["learning_rate"])
    return [*_neat([float(np.median(rates))] if rates else []), 0.1, 0.5, 0.9, 1.1, 2.0, 10.0]


def _lengths(params: Params, paths: tuple[Path, ...]) -> list[int]:
    gradients = [len(path.gradients) for path in paths]
    each = {round(count / params["search_steps"]) - params["steps"] for count in gradients}
    return sorted({*each, *(count - params["steps"] for count in gradients), -1, 1} - {0} | {0})


def _constants(params: Params, paths: tuple[Path, ...]) -> list[float]:
    """Factors of c: the first cotangent that isn't zero has c in the label's place."""
    constants = [
        float(np.abs(query.cotangent).max()) / params["initial_const"]
        for path in paths
        for query in path.gradients[:1]
        if query.cotangent is not None and np.abs(query.cotangent).max() > 0
    ]
    return [*_neat(constants[:1]), 1.0, 0.1, 10.0, 0.01, 0.5, 2.0]


@dataclass(frozen=True)
class MinimalFit:
    """The habits that come nearest to a library's images, how near (max |Δ|), and others that give them, too."""

    habits: MinimalHabits
    residual: float
    as_well: tuple[MinimalHabits, ...] = ()


def fit(
    name: str,
    classifier: Differentiable,
    paths: tuple[Path, ...],
    params: Params,
    bases: tuple[MinimalHabits, ...],
    others: tuple[MinimalHabits, ...] = (),
    targeted: bool = False,
    most: int = 2,
    progress: Callable[[MinimalHabits, float], None] | None = None,
) -> MinimalFit:
    """Find the habits that give a library's images.

    These are the nearest of ``bases`` or one of ``others``, or else that base with up to ``most`` changes, one after
    another. ``progress(habits, residual)`` is called after each attack.
    """
    x, y = np.stack([path.image for path in paths]), np.array([path.label for path in paths])
    final = np.stack([path.final for path in paths])

    def residual(habits: MinimalHabits) -> float:
        left = spread(attack(name, classifier, x, y, params, habits, targeted), final)
        if progress is not None:
            progress(habits, left)
        return left

    if params.get("candidates", 0) >= classifier.classes:  # then both are the same
        bases, others = (tuple(replace(base, every_class=False) for base in group) for group in (bases, others))
    current = MinimalFit(bases[0], residual(bases[0]))
    for base in (*bases[1:], *others):
        if current.residual > CLOSE and (left := residual(base)) < (CLOSE if base in others else current.residual):
            current = MinimalFit(base, left)
    for _ in range(most):
        if current.residual <= CLOSE:
            break
        distinct = dict.fromkeys(options(name, params, paths, classifier, current.habits))
        residuals = [(option, residual(option)) for option in distinct if option != current.habits]
        residuals.sort(key=lambda item: max(item[1], CLOSE))  # stable: of those that are close, the first comes first
        best, left = residuals[0]
        if left >= 0.9 * current.residual:
            break
        current = MinimalFit(best, left, tuple(habits for habits, other in residuals[1:] if other <= CLOSE))
    return current


def spread(a: Array, b: Array) -> float:
    """The largest difference of two sets of images; infinity where one has a NaN or an infinity."""
    off = np.abs(a.astype(np.float64) - b)
    return float(off.max(initial=0)) if np.isfinite(off).all() else float("inf")


def changed(a: MinimalHabits, b: MinimalHabits) -> dict[str, tuple[Any, Any]]:
    """Name of each habit that differs -> its values in a and in b."""
    pairs = ((field.name, getattr(a, field.name), getattr(b, field.name)) for field in fields(a))
    return {name: (first, second) for name, first, second in pairs if first != second}


def in_words(changes: dict[str, tuple[Any, Any]], names: tuple[str, str]) -> str:
    """The changes in words: the second library's values, then the first one's."""
    return "; ".join(f"{names[side]}: {_values_in_words(changes, side)}" for side in (1, 0))


def _values_in_words(changes: dict[str, tuple[Any, Any]], side: int) -> str:
    words = {
        "step": "times the step asked for",
        "steps": "steps more than asked for",
        "constant": "times the constant asked for",
        "searches": "search steps more than asked for",
        "confidence": "more confidence than asked for",
    }
    texts = []
    for key, pair in changes.items():
        value = pair[side]
        text = "as asked" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
        texts.append(f"{text} {words[key]}" if key in words else f"{key.replace('_', ' ')}: {text}")
    return ", ".join(texts)


def specific(a: tuple[Path, ...], b: tuple[Path, ...], name: str, params: Params) -> tuple[str, list[Any]]:
    """For two libraries that go the same way, the parameter to try first, and its values.

    It is the number of steps where one makes more gradient queries, else DeepFool's overshoot, which comes after all
    queries. Both tell more than which of the points is returned.
    """
    counts = [(len(one.gradients), len(two.gradients)) for one, two in zip(a, b, strict=True)]
    if all(one == two for one, two in counts):
        return ("overshoot", [0.0]) if name == "deepfool" else ("", [])
    more = [len(two.points) - len(one.points) for one, two in zip(a, b, strict=True)]
    searches = params.get("search_steps", 1)
    offs = {round(off / each) for off in more for each in (1, searches)} | {
        round(params["steps"] * (two - one) / one) for one, two in counts if one
    }
    values = [params["steps"] + off for off in sorted(offs, key=abs) if off]
    return "steps", [value for value in values if value > 0][:8]
