"""Attacks without a tape: the evidence of their paths, then stand-ins, then every parameter, one at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from sparring.adapters.errors import InputError, SparringError
from sparring.adapters.protocol import Images
from sparring.suites.explain.bench import Bench, Finding, Trial, first_meeting, judge, rerun
from sparring.suites.explain.habits import minimal
from sparring.suites.explain.habits.gradient import rounded
from sparring.suites.explain.habits.replay import GRIDS
from sparring.suites.explain.habits.trace import Path, Trace
from sparring.suites.explain.paths import apart, nearest_points, same_way

LONGEST = 60.0
"""Seconds for the search among the parameters of an attack that has no stand-in."""

PARAMETERS = {
    "eps": "budget",
    "eps_step": "step",
    "learning_rate": "step",
    "theta": "step",
    "steps": "number of steps",
    "queries": "number of steps",
    "iterations": "number of steps",
    "random_start": "start",
    "overshoot": "overshoot",
    "abort_early": "early stop",
    "initial_const": "constant c",
    "search_steps": "constant c",
    "decay": "momentum",
}
"""Canonical parameter -> the suspect that it is."""


def find_by_trial(bench: Bench) -> Finding:
    """Look for the change that makes the single attacks meet."""
    name = bench.request.name
    if name in minimal.KNOWN:
        _by_evidence(bench)
    for suspect, text, images in _from_paths(bench):
        judge(bench, suspect, text, f"{bench.names[0]}'s own path", images, 1)
    if finding := first_meeting(bench):
        return finding
    if name in minimal.KNOWN and (finding := _by_stand_ins(bench)) is not None:
        return finding
    return find_by_parameters(bench)


# --- what the paths show


def _by_evidence(bench: Bench) -> None:
    """DeepFool and CW: try what the numbers of queries and the ends show, before what would do as well."""
    paths, params = (bench.traces[0].paths, bench.traces[1].paths), bench.request.params
    if goes_on(bench, *paths):
        return
    key, values = minimal.specific(*paths, bench.request.name, params)
    if not values or not all(same_way(one, two) for one, two in zip(*paths, strict=True)):
        return
    for which in (0, 1):
        for option in values:
            # what the first does with fewer steps, the second does with as many more
            value = 2 * params[key] - option if which and key == "steps" else option
            try:
                images = rerun(bench, which, bench.request_with(**{key: value}))
            except SparringError:
                continue
            text = _equivalent(bench, which, key, value)
            if judge(bench, PARAMETERS[key], text, f"{bench.names[which]} itself", images, 1 - which).meets:
                return


def goes_on(bench: Bench, a: tuple[Path, ...], b: tuple[Path, ...], in_a_batch: bool = False) -> bool:
    """DeepFool: one ends at the first misclassified point, the other visits the same points and goes on."""
    if bench.request.name != "deepfool" or bench.request.targeted:
        return False
    for which, (one, two) in enumerate(((a, b), (b, a))):
        left = minimal.goes_on(one, two, bench.classifier)
        if left is not None:
            stopping, going = bench.names[which], bench.names[1 - which]
            text = f"{stopping} leaves an image alone once it is misclassified, {going} goes on with it"
            text += " for as long as another of the batch is not" if in_a_batch else ""
            bench.trials.append(Trial("early stop", text, f"{going}'s own path, cut off there", left, 0, True))
            return True
    return False


def _from_paths(bench: Bench) -> Iterator[tuple[str, str, Images]]:
    """The first library's images rounded; and, where both go the same way, what the second returns of it."""
    a, b = bench.traces
    untouched = (b.images == bench.x).all(axis=(1, 2, 3))  # some leave alone what is wrong to begin with
    for grid in GRIDS:
        coarse = np.asarray(rounded(a.images.astype(np.float64), grid), np.float32)
        coarse[untouched] = a.images[untouched]
        if apart(coarse, a.images).pixels:
            yield "dtype", f"{bench.names[1]} rounds its images to {grid}", coarse
    if all(same_way(one, two) for one, two in zip(a.paths, b.paths, strict=True)):
        text = f"{bench.names[1]} returns another of the points that both visit than {bench.names[0]} does"
        yield "best against last iterate", text, nearest_points(a.paths, b.images)


# --- stand-ins


def _by_stand_ins(bench: Bench) -> Finding | None:
    """DeepFool and CW: the habits that give the first library's images, then what must change for the second's."""
    bases, names = minimal.KNOWN[bench.request.name], bench.names
    first = _fit(bench, bench.traces[0], bases)
    if first.residual > minimal.CLOSE:
        bench.notes.append(f"no stand-in gives {names[0]}'s images: the nearest is {first.residual:.2g} away")
        return None
    second = _fit(bench, bench.traces[1], (first.habits,), bases)
    changes = minimal.changed(first.habits, second.habits)
    suspects = [*dict.fromkeys(minimal.SUSPECT[key] for key in changes)]
    if not suspects or second.residual > minimal.CLOSE:
        return None
    text = minimal.in_words(changes, names)
    as_well = {
        f"{minimal.SUSPECT[key]}: {minimal.in_words(others, names)}"
        for habits in (second.as_well if len(suspects) == 1 else ())
        for others in [minimal.changed(first.habits, habits)]
        for key in others
        if minimal.SUSPECT[key] not in suspects
    }
    if len(suspects) > 1:
        as_well = {f"it takes {len(suspects)} changes: {', '.join(suspects)}"}
    bench.trials.append(Trial(suspects[0], text, f"a stand-in of {names[0]}", second.residual, 0, True))
    return Finding("different", suspects[0], text, second.residual, tuple(sorted(as_well)))


def _fit(
    bench: Bench,
    trace: Trace,
    bases: tuple[minimal.MinimalHabits, ...],
    others: tuple[minimal.MinimalHabits, ...] = (),
) -> minimal.MinimalFit:
    def progress(habits: minimal.MinimalHabits, residual: float) -> None:
        bench.report(f"stand-ins of {trace.library}", 0, 1)

    name, params, targeted = bench.request.name, bench.request.params, bench.request.targeted
    return minimal.fit(name, bench.classifier, trace.paths, params, bases, others, targeted, progress=progress)


# --- every parameter


def find_by_parameters(bench: Bench, in_a_batch: bool = False) -> Finding:
    """Run one library again with other labels or another value of a parameter, until it meets the other library."""
    begin = time.perf_counter()
    for count, (which, suspect, text, arguments) in enumerate(_variations(bench)):
        if count > 8 and time.perf_counter() - begin > LONGEST:
            bench.notes.append(f"after {count} reruns the search among the parameters was given up")
            break
        bench.report(f"trying: {suspect}", count, count + 1)
        try:
            images = rerun(bench, which, **arguments, at_once=None if in_a_batch else 1)
        except SparringError:
            continue
        if not apart(images, bench.x).pixels:
            continue  # to be without any effect is no explanation
        ran = f"{bench.names[which]} itself" + (", in a batch" if in_a_batch else "")
        if judge(bench, suspect, text, ran, images, 1 - which, in_a_batch=in_a_batch).meets:
            break
    return first_meeting(bench) or Finding("different")


def _variations(bench: Bench) -> Iterator[tuple[int, str, str, dict[str, Any]]]:
    """Which library runs again, and with what: other labels, other values of each parameter."""
    request = bench.request
    assert request.canonical is not None
    clean = bench.classifier.logits(bench.x).argmax(axis=1).astype(np.int64)
    for which in (0, 1):
        other = bench.names[1 - which]
        if (clean != bench.labels).any():
            yield which, "label source", f"{other} takes the model's own predictions", {"labels": clean}
        for key, parameter in request.canonical.parameters.items():
            own, others = bench.traces[which], bench.traces[1 - which]
            for option in _values(parameter.type, request.params[key], own, others):
                try:
                    variation = bench.request_with(**{key: option})
                except InputError:
                    continue
                text = _equivalent(bench, which, key, option)
                yield which, PARAMETERS.get(key, key), text, {"request": variation}


def _equivalent(bench: Bench, which: int, key: str, option: Any) -> str:
    """What the other library does, in terms of a parameter of this one."""
    value = bench.request.params[key]
    return f"{bench.names[1 - which]} does what {key} = {_number(option)} does, where {_number(value)} is asked for"


def _values(kind: type, value: Any, own: Trace, other: Trace) -> list[Any]:
    """Other values of a parameter: those that the numbers of queries suggest, and the usual slips."""
    if kind is bool:
        return [not value]
    if kind is int:
        counts = [sum(len(path.gradients) or len(path.queries) for path in trace.paths) for trace in (own, other)]
        near = round(value * counts[1] / max(counts[0], 1))
        return [*dict.fromkeys([near, *range(value - 1, value - 6, -1), value + 1, value + 2, 2 * value, value // 2])]
    if kind is float:
        factors = (1.1, 0.9, 2.0, 0.5, 1.05, 0.95, 1.2, 0.8, 1.5, 10.0, 0.1, 2.5, 0.4, 1.25, 0.75)
        return [value * factor for factor in factors] if value else [0.01, 0.1, 1.0]
    return []


def _number(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
