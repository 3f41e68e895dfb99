"""Find the first layer at which two networks part, and say why it differs.

A layer of A has a counterpart in B where some layer of B gives the same numbers, perhaps in another layout. A layer
without one is no difference as long as a later layer that takes its output has one: frameworks and exporters fuse
layers, split them, and turn their outputs. The first difference is the first layer of A after which none has one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from sparring.models.layers.layer import Layer
from sparring.suites.certify.causes import cause_of
from sparring.suites.certify.certificate import Difference
from sparring.suites.certify.layer_pair import Cause, LayerPair
from sparring.suites.certify.layer_parameters import same_weights
from sparring.suites.certify.matching import Matched, agree, layouts, match, relative_distance, varies

NEAR = 12
"""The cause is looked for in this many layers, from the first difference on."""

Floats = npt.NDArray[np.float32]


def first_difference(a: Sequence[Layer], b: Sequence[Layer]) -> Difference:
    """Where the layers of A and B part, on the same images; the last layer of each is the network's output."""
    matched = match(a, b)
    lost_a, lost_b = _without_heirs(a, matched.good_a), _without_heirs(b, matched.good_b)
    if not lost_a:
        return _gradual(a, b, matched)
    region_a = [a[i] for i in lost_a if varies(a[i])][:NEAR] or [a[lost_a[0]]]
    region_b = [b[j] for j in lost_b if varies(b[j])][:NEAR] or [b[-1]]
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
        difference = _left_out(a, b, lost_a, lost_b, matched.limit)
        if difference is not None:
            return replace(difference, after=after)
    delta = float(np.abs(pair.a - pair.b).max(initial=0))
    why = cause.text if cause else _without_cause(pair, delta)
    names = [layer.name for layer in region_a]
    skipped = names[: names.index(pair.layer_a.name)] if pair.layer_a.name in names else []
    if skipped and not (cause and cause.certain and "variance" not in pair.layer_a.facts):
        why += f" ({', '.join(skipped)} of A, before it, has no counterpart in B: fused, or part of the difference)"
    return Difference(pair.layer_a.name, pair.layer_b.name, delta, why, after)


def _without_heirs(layers: Sequence[Layer], good: Sequence[bool]) -> list[int]:
    """The layers without a counterpart whose output no layer with a counterpart takes, even through others."""
    alive = list(good)
    for i in range(len(layers) - 1, -1, -1):
        if alive[i]:
            for j in layers[i].takes:
                alive[j] = True
    return [i for i, lives in enumerate(alive) if not lives]


def _last_good(layers: Sequence[Layer], i: int, good: Sequence[bool]) -> int:
    """The last layer with a counterpart among those whose outputs layer i is made of."""
    waiting, seen = list(layers[i].takes), set()
    while waiting:
        j = waiting.pop()
        if j not in seen:
            seen.add(j)
            waiting += [] if good[j] else layers[j].takes
    return max((j for j in seen if good[j]), default=0)


def _pair(
    a: Sequence[Layer], b: Sequence[Layer], region_a: Sequence[Layer], region_b: Sequence[Layer], limit: float
) -> tuple[LayerPair | None, Cause | None]:
    """The first two layers whose difference has a cause; else the two layers of one size that are nearest."""
    pairs = [
        _as_pair(a, b, one, other, laid, limit)
        for one, other in (_last_steps(one, other) for one in region_a for other in region_b)
        for laid in layouts(one.values, other.values)
    ]
    if not pairs:
        return None, None
    causes = [(pair, cause) for pair in pairs if (cause := cause_of(pair)) is not None]
    if causes:
        certain = next((item for item in causes if item[1].certain), None)
        return certain or min(causes, key=lambda item: (not item[0].inputs_agree, item[1].far))
    # what is one step in one of the two may be several in the other: the last of these is its counterpart
    begins = pairs[0].layer_a.name, pairs[0].layer_b.name
    first = [pair for pair in pairs if pair.layer_a.name == begins[0] or pair.layer_b.name == begins[1]]
    near = min(first, key=lambda pair: relative_distance(pair.a, pair.b))
    # a layer that is nearly the same is the counterpart, and those before it are fused
    return (near if relative_distance(near.a, near.b) < 0.1 else first[0]), None


def _normalized_by_next(layers: Sequence[Layer]) -> set[str]:
    """The names of the layers whose output a batch normalization takes."""
    return {layers[layer.takes[0]].name for layer in layers if "variance" in layer.facts and layer.takes}


def _last_steps(one: Layer, other: Layer) -> tuple[Layer, Layer]:
    """Two recurrent layers with their last step alone: some frameworks give all steps, some the last."""
    if "kernel" not in one.facts or "kernel" not in other.facts:
        return one, other
    ends = []
    for layer in (one, other):
        hidden = layer.facts["kernel"].shape[1]
        ends.append(replace(layer, values=layer.values.reshape(len(layer.values), -1, hidden)[:, -1]))
    return ends[0], ends[1]


def _as_pair(
    a: Sequence[Layer], b: Sequence[Layer], one: Layer, other: Layer, values: Floats, limit: float
) -> LayerPair:
    one, other = _folded(a, _padded(a, one), other), _folded(b, _padded(b, other), one)
    takes = [layers[layer.takes[0]] if layer.takes else None for layers, layer in ((a, one), (b, other))]
    same = takes[0] is not None and takes[1] is not None and agree(takes[0], takes[1], limit)
    # the bias of a layer may stand in the batch normalization after it
    alike = (one.name in _normalized_by_next(a)) == (other.name in _normalized_by_next(b))
    return LayerPair(one, other, one.values, values, takes[0], takes[1], same, alike)


def _preprocessed(
    a: Sequence[Layer], b: Sequence[Layer], lost_a: Sequence[int], lost_b: Sequence[int]
) -> tuple[LayerPair, Cause] | None:
    """The difference of the preprocessing of the images, if the networks part there."""
    first = [
        layers[1] if 1 in lost and layers[1].kind == "preprocessing" else None
        for layers, lost in ((a, lost_a), (b, lost_b))
    ]
    if first == [None, None]:
        return None
    one, other = first[0] or a[0], first[1] or b[0]
    if one.values.shape != other.values.shape:
        return None
    pair = LayerPair(one, other, one.values, other.values, a[0], b[0], True)
    cause = cause_of(pair)
    return None if cause is None else (pair, cause)


def _at_the_end(
    a: Sequence[Layer], b: Sequence[Layer], lost_a: Sequence[int], region_b: Sequence[Layer]
) -> tuple[LayerPair, Cause] | None:
    """The cause that relates the two outputs, and B's first step more, where all layers agree but the outputs don't."""
    if lost_a != [len(a) - 1]:
        return None
    whole = LayerPair(a[-1], region_b[0], a[-1].values, b[-1].values, None, None, False)
    cause = cause_of(whole)
    return (whole, cause) if cause is not None and cause.certain else None


def _left_out(
    a: Sequence[Layer], b: Sequence[Layer], lost_a: Sequence[int], lost_b: Sequence[int], limit: float
) -> Difference | None:
    """A step that only one of the two has: the next layer has the same weights in both, and takes other numbers."""
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
    """The steps from layer i back to the layer that takes what ``wanted`` gives; none where that isn't near."""
    steps: list[Layer] = []
    while len(steps) < 4 and layers[i].takes:
        steps.append(layers[i])
        i = layers[i].takes[0]
        if agree(layers[i], wanted, limit):
            return steps
    return []


def _listed(steps: Sequence[Layer]) -> str:
    return ", ".join(f"{step.name} ({step.kind})" for step in reversed(steps))


def _folded(layers: Sequence[Layer], one: Layer, other: Layer) -> Layer:
    """A batch normalization and the layer before it as one layer with one set of weights, as exporters write it.

    Only where the other network's layer is a convolution or dense layer.
    """
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
    """The layer at which the difference grows most, where no layer stands out."""
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


def _without_cause(pair: LayerPair, delta: float) -> str:
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
