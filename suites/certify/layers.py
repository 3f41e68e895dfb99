"""At which layer two networks part: their layers matched by what comes out of them, whatever they are called.

A layer of A is found in B where some layer of B gives the same numbers, in another layout perhaps. One that isn't found
is no difference as long as a later one that takes its output is: frameworks and exporters fuse layers, split them, and
turn their outputs. The first difference is the first layer of A after which nothing is found any more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from sparring.models.layers.layer import Layer
from sparring.suites.certify.causes import recognised
from sparring.suites.certify.certificate import Difference
from sparring.suites.certify.pairs import Cause, Pair
from sparring.suites.certify.parameters import same_weights

ROUNDING = 3e-6
"""A difference of a layer's outputs, as a share of its largest, is rounding at least up to here."""
JUMP = 10.0
"""And beyond, up to this multiple of the largest difference that was rounding in the layers before."""
MOST = 1e-3
"""But no further."""
NEAR = 12
"""So many layers after the first difference are looked at for what it is."""

_AXES: dict[int, list[tuple[int, ...]]] = {3: [(0, 1, 2), (0, 2, 1)], 4: [(0, 1, 2, 3), (0, 3, 1, 2), (0, 2, 3, 1)]}

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Matched:
    """For each layer of A the nearest of B and how far it is off, a share of the largest output; -1 and infinity where
    none has outputs of that size. ``good_a`` and ``good_b`` are the layers that are found in the other."""

    nearest: tuple[int, ...]
    error: tuple[float, ...]
    good_a: tuple[bool, ...]
    good_b: tuple[bool, ...]

    @property
    def limit(self) -> float:
        """Up to here a difference is rounding."""
        return _limit(max((off for off, good in zip(self.error, self.good_a, strict=True) if good), default=0.0))


def first_difference(a: Sequence[Layer], b: Sequence[Layer]) -> Difference:
    """Where the layers of A and B part, on the same images. The last of both is their output."""
    matched = match(a, b)
    lost_a, lost_b = _without_heirs(a, matched.good_a), _without_heirs(b, matched.good_b)
    if not lost_a:
        return _gradual(a, b, matched)
    region_a = [a[i] for i in lost_a if _tells(a[i])][:NEAR] or [a[lost_a[0]]]
    region_b = [b[j] for j in lost_b if _tells(b[j])][:NEAR] or [b[-1]]
    before = _last_good(a, lost_a[0], matched.good_a)
    after = (a[before].name, b[matched.nearest[before]].name)
    pair, cause = (
        _preprocessed(a, b, lost_a, lost_b)
        or _at_the_end(a, b, lost_a, region_b)
        or _pair(a, b, region_a, region_b, matched.limit)
    )
    if pair is None:
        one, other = region_a[0], region_b[0]
        why = (
            f"{one.name} ({one.kind}) of A gives {_shape(one)}; what comes next in B is {other.name} ({other.kind}), "
            f"which gives {_shape(other)}"
        )
        return Difference(one.name, other.name, None, why, after)
    if cause is None or not cause.certain:
        found = _left_out(a, b, lost_a, lost_b, matched.limit)
        if found is not None:
            return replace(found, after=after)
    delta = float(np.abs(pair.a - pair.b).max(initial=0))
    why = cause.text if cause else _unrecognised(pair, delta)
    names = [layer.name for layer in region_a]
    skipped = names[: names.index(pair.layer_a.name)] if pair.layer_a.name in names else []
    if skipped and not (cause and cause.certain and "variance" not in pair.layer_a.facts):
        why += f" ({', '.join(skipped)} of A, before it, has no counterpart in B: fused, or part of the difference)"
    return Difference(pair.layer_a.name, pair.layer_b.name, delta, why, after)


def match(a: Sequence[Layer], b: Sequence[Layer]) -> Matched:
    """Match layers by their outputs. The output of the whole goes with the other's only."""
    signatures = [_signature(layer.values) for layer in b]
    nearest, error, good_a, good_b = [], [], [], [False] * len(b)
    largest = 0.0
    for i, layer in enumerate(a):
        best, off, own = -1, float("inf"), _signature(layer.values)
        tells = i in (0, len(a) - 1) or _tells(layer)
        for j in range(len(b) - 1, len(b)) if i == len(a) - 1 else range(len(b) - 1):
            if not _alike(own, signatures[j]):
                continue
            distance = min((_off(layer.values, laid) for laid in layouts(layer.values, b[j].values)), default=np.inf)
            good_b[j] |= tells and distance <= _limit(largest)
            if distance < off:
                best, off = j, float(distance)
        good_a.append(tells and off <= _limit(largest))
        if good_a[-1]:
            largest = max(largest, off)
        nearest.append(best)
        error.append(off)
    return Matched(tuple(nearest), tuple(error), tuple(good_a), tuple(good_b))


def _limit(largest: float) -> float:
    return min(MOST, max(ROUNDING, JUMP * largest))


def _tells(layer: Layer) -> bool:
    """Whether it is not the same for all images, which would say nothing of what came before."""
    return bool((layer.values != layer.values[:1]).any())


def layouts(like: Floats, values: Floats) -> Iterator[Floats]:
    """The values in the shape of ``like``: as they are, and with channels moved to the front or to the end."""
    if like.size != values.size:
        return
    for axes in _AXES.get(values.ndim, [tuple(range(values.ndim))]):
        turned = values.transpose(axes)
        if turned.shape == like.shape or min(like.ndim, values.ndim) == 2 or _squeezed(turned) == _squeezed(like):
            yield np.ascontiguousarray(turned).reshape(like.shape)


def _squeezed(values: Floats) -> tuple[int, ...]:
    return tuple(side for side in values.shape if side != 1)


def _signature(values: Floats) -> tuple[int, float, float]:
    """What no change of layout changes: how many numbers, their mean and their root mean square."""
    numbers = values.astype(np.float64)
    return values.size, float(numbers.mean()), float(np.sqrt((numbers**2).mean()))


def _alike(one: tuple[int, float, float], other: tuple[int, float, float]) -> bool:
    if one[0] != other[0]:
        return False
    size = max(one[2], other[2])
    return bool(abs(one[1] - other[1]) <= 0.05 * size and abs(one[2] - other[2]) <= 0.05 * size)


def _off(a: Floats, b: Floats) -> float:
    size = float(np.abs(a).max(initial=0))
    delta = float(np.abs(a - b).max(initial=0))
    return delta / size if size else (0.0 if delta == 0 else float("inf"))


def _without_heirs(layers: Sequence[Layer], good: Sequence[bool]) -> list[int]:
    """The layers that are not found, and of whose output no layer is made that is."""
    alive = list(good)
    for i in range(len(layers) - 1, -1, -1):
        if alive[i]:
            for j in layers[i].takes:
                alive[j] = True
    return [i for i, one in enumerate(alive) if not one]


def _last_good(layers: Sequence[Layer], i: int, good: Sequence[bool]) -> int:
    """The last layer that is found of those whose outputs layer i is made of."""
    waiting, seen = list(layers[i].takes), set()
    while waiting:
        j = waiting.pop()
        if j not in seen:
            seen.add(j)
            waiting += [] if good[j] else layers[j].takes
    return max((j for j in seen if good[j]), default=0)


def _pair(
    a: Sequence[Layer], b: Sequence[Layer], region_a: Sequence[Layer], region_b: Sequence[Layer], limit: float
) -> tuple[Pair | None, Cause | None]:
    """The first two layers at which the difference is recognised; else the two of one size that are nearest."""
    pairs = [
        _as_pair(a, b, one, other, laid, limit)
        for one, other in (_last_steps(one, other) for one in region_a for other in region_b)
        for laid in layouts(one.values, other.values)
    ]
    if not pairs:
        return None, None
    causes = [(pair, cause) for pair in pairs if (cause := recognised(pair)) is not None]
    if causes:
        weak = [item for item in causes if not item[1].certain]
        certain = next((item for item in causes if item[1].certain), None)
        return certain or min(weak, key=lambda item: (not item[0].inputs_agree, item[1].far))
    # what is one step in one of the two may be several in the other: the last of these is its counterpart
    begins = pairs[0].layer_a.name, pairs[0].layer_b.name
    first = [pair for pair in pairs if pair.layer_a.name == begins[0] or pair.layer_b.name == begins[1]]
    near = min(first, key=lambda pair: _off(pair.a, pair.b))
    # a layer that is nearly the same is the counterpart, and those before it are fused
    return (near if _off(near.a, near.b) < 0.1 else first[0]), None


def _normalised_apart(layers: Sequence[Layer]) -> set[str]:
    """The layers with weights whose output a batch normalisation takes."""
    return {layers[layer.takes[0]].name for layer in layers if "variance" in layer.facts and layer.takes}


def _last_steps(one: Layer, other: Layer) -> tuple[Layer, Layer]:
    """Of two recurrent layers what they give at the end: some give all steps, some the last."""
    if "kernel" not in one.facts or "kernel" not in other.facts:
        return one, other
    ends = []
    for layer in (one, other):
        hidden = layer.facts["kernel"].shape[1]
        ends.append(replace(layer, values=layer.values.reshape(len(layer.values), -1, hidden)[:, -1]))
    return ends[0], ends[1]


def _as_pair(a: Sequence[Layer], b: Sequence[Layer], one: Layer, other: Layer, laid: Floats, limit: float) -> Pair:
    one, other = _folded(a, _padded(a, one), other), _folded(b, _padded(b, other), one)
    takes = [layers[layer.takes[0]] if layer.takes else None for layers, layer in ((a, one), (b, other))]
    same = takes[0] is not None and takes[1] is not None and _agree(takes[0], takes[1], limit)
    # the bias of a layer may stand in the batch normalisation after it
    alike = (one.name in _normalised_apart(a)) == (other.name in _normalised_apart(b))
    return Pair(one, other, one.values, laid, takes[0], takes[1], same, alike)


def _preprocessed(
    a: Sequence[Layer], b: Sequence[Layer], lost_a: Sequence[int], lost_b: Sequence[int]
) -> tuple[Pair, Cause] | None:
    """The difference of what is done to the images before the networks, if that is where it begins."""
    first = [
        layers[1] if 1 in lost and layers[1].kind == "preprocessing" else None
        for layers, lost in ((a, lost_a), (b, lost_b))
    ]
    if first == [None, None]:
        return None
    one, other = first[0] or a[0], first[1] or b[0]
    if one.values.shape != other.values.shape:
        return None
    pair = Pair(one, other, one.values, other.values, a[0], b[0], True)
    cause = recognised(pair)
    return None if cause is None else (pair, cause)


def _at_the_end(
    a: Sequence[Layer], b: Sequence[Layer], lost_a: Sequence[int], region_b: Sequence[Layer]
) -> tuple[Pair, Cause] | None:
    """Where all layers agree and the outputs don't: what these have to do with one another, and B's first step more."""
    if lost_a != [len(a) - 1]:
        return None
    whole = Pair(a[-1], region_b[0], a[-1].values, b[-1].values, None, None, False)
    cause = recognised(whole)
    return (whole, cause) if cause is not None and cause.certain else None


def _left_out(
    a: Sequence[Layer], b: Sequence[Layer], lost_a: Sequence[int], lost_b: Sequence[int], limit: float
) -> Difference | None:
    """A step that one of the two doesn't have: the next layer has the same weights in both, and takes other numbers."""
    for i in lost_a[:NEAR]:
        for j in lost_b[:NEAR]:
            if not same_weights(a[i].facts, b[j].facts):
                continue
            one, other = _padded(a, a[i]), _padded(b, b[j])
            if not one.takes or not other.takes:
                continue
            here, there = a[one.takes[0]], b[other.takes[0]]
            if steps := _steps_to(a, one.takes[0], there, limit):
                step = steps[-1]
                why = f"{_listed(steps)} of A is missing in B: {b[j].name} takes what {step.name} of A takes"
                return Difference(step.name, b[j].name, None, why)
            if steps := _steps_to(b, other.takes[0], here, limit):
                step = steps[-1]
                why = f"{_listed(steps)} of B is not in A: {a[i].name} takes what {step.name} of B takes"
                return Difference(a[i].name, step.name, None, why)
    return None


def _steps_to(layers: Sequence[Layer], i: int, wanted: Layer, limit: float) -> list[Layer]:
    """The steps back from layer i to the one that takes what is wanted; none where it isn't near."""
    steps: list[Layer] = []
    while len(steps) < 4 and layers[i].takes:
        steps.append(layers[i])
        i = layers[i].takes[0]
        if _agree(layers[i], wanted, limit):
            return steps
    return []


def _listed(steps: Sequence[Layer]) -> str:
    return ", ".join(f"{step.name} ({step.kind})" for step in reversed(steps))


def _agree(one: Layer, other: Layer, limit: float) -> bool:
    return any(_off(one.values, laid) <= limit for laid in layouts(one.values, other.values))


def _folded(layers: Sequence[Layer], one: Layer, other: Layer) -> Layer:
    """Batch normalisation beside a convolution or dense layer is taken together with the one before it, as exporters do
    it: the weights of both in one."""
    before = layers[one.takes[0]] if one.takes else None
    if before is None or "variance" not in one.facts or "weight" not in other.facts:
        return one
    weight = before.facts.get("weight")
    if weight is None or len(weight) != len(one.facts["variance"]):
        return one
    factor = one.facts["scale"] / np.sqrt(one.facts["variance"] + np.float32(one.facts["epsilon"]))
    folded = {
        **before.facts,
        "weight": weight * factor.reshape(-1, *(1,) * (weight.ndim - 1)),
        "bias": (before.facts["bias"] - one.facts["mean"]) * factor + one.facts["offset"],
    }
    # its own numbers stay, beside those of both: another epsilon shows in the outputs
    return _padded(layers, replace(one, facts={**one.facts, **folded}, takes=before.takes))


def _padded(layers: Sequence[Layer], one: Layer) -> Layer:
    """A convolution or pooling together with a step before it that puts zeros around the images."""
    before = layers[one.takes[0]] if one.takes else None
    if before is None or "pad" not in before.kind.lower() or "padding" not in one.facts or not before.takes:
        return one
    inner, outer = layers[before.takes[0]].values, before.values
    if inner.ndim != 4 or outer.ndim != 4 or inner.shape[:2] != outer.shape[:2]:
        return one
    more = outer.shape[2] - inner.shape[2], outer.shape[3] - inner.shape[3]
    for top in range(more[0] + 1):
        for left in range(more[1] + 1):
            sides = top, left, more[0] - top, more[1] - left
            if np.array_equal(np.pad(inner, ((0, 0), (0, 0), sides[::2], sides[1::2])), outer):
                padding = tuple(x + y for x, y in zip(one.facts["padding"], sides, strict=True))
                return replace(one, facts={**one.facts, "padding": padding}, takes=before.takes)
    return one


def _gradual(a: Sequence[Layer], b: Sequence[Layer], matched: Matched) -> Difference:
    """No layer stands out: the one at which the difference grows most."""
    largest, best = 0.0, (0.0, 0)
    for i, (off, good) in enumerate(zip(matched.error, matched.good_a, strict=True)):
        if not good:
            continue
        growth = off / max(largest, 1e-8)
        if i and growth > best[0]:
            best = growth, i
        largest = max(largest, off)
    i = best[1]
    layer_a, layer_b = a[i], b[matched.nearest[i]]
    why = (
        f"no layer stands out: all agree within {largest:.1e} of their largest output, as rounding does; it grows most "
        f"here, to {matched.error[i]:.1e}"
    )
    return Difference(layer_a.name, layer_b.name, None, why)


def _unrecognised(pair: Pair, delta: float) -> str:
    size = float(np.abs(pair.a).max(initial=0))
    inputs = "what goes in is the same, " if pair.inputs_agree else ""
    return (
        f"{inputs}{pair.layer_a.kind} of A and {pair.layer_b.kind} of B give other numbers: up to {delta:.3g} apart, "
        f"{delta / size:.1e} of the largest"
        if size
        else f"{pair.layer_a.kind} of A gives zeros, {pair.layer_b.kind} of B doesn't"
    )


def _shape(layer: Layer) -> str:
    return " x ".join(map(str, layer.values.shape[1:])) + " numbers an image"
