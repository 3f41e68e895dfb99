"""Gradient attacks: their recorded steps (the tape) show the habits that two libraries don't share; each is tried."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from sparring.adapters.errors import InputError, SparringError
from sparring.adapters.protocol import Images
from sparring.suites.explain.bench import Bench, Finding, first_meeting, judge, rerun
from sparring.suites.explain.by_trial import find_by_trial
from sparring.suites.explain.cotangents import ExactLoss, Rescaled
from sparring.suites.explain.habits.compare import Change, Pair, compare, nearest, scale
from sparring.suites.explain.habits.gradient import simulate
from sparring.suites.explain.paths import Apart


def read_tapes(bench: Bench) -> Pair | None:
    """Compare the tapes of both libraries; None for an attack that has no tape."""
    if not bench.has_tape:
        return None
    bench.report("reading the paths", 0, 1)
    return compare(*bench.traces, bench.classifier, bench.recipe)


def find_by_tape(bench: Bench, pair: Pair, singly: Apart) -> Finding:
    """Look for the change in the tapes. ``singly``: how far apart the images of the single attacks are."""
    if not pair.changes and not pair.left and not pair.left_of_a:
        if finding := _by_scale(bench, pair) or _by_exact_loss(bench, pair, singly):
            return finding
        return find_by_trial(bench) if _decided_otherwise(bench) else Finding("same", rounding=singly.pixels)
    alone = len(pair.changes) == 1
    for change in pair.changes:
        _try(bench, change, pair, settled=alone and not pair.left)
    suspects = {change.suspect for change in pair.changes}
    for change, left in nearest(pair, bench.names, bench.recipe):
        if change.suspect not in suspects:
            _try(bench, change, pair, settled=alone and not left)
    if pair.changes and not pair.left:
        return _read_off(bench, pair)
    return first_meeting(bench) or find_by_trial(bench)


def _decided_otherwise(bench: Bench) -> bool:
    """Whether the classifier tells one library's images from the other's: a logit is off by a tenth of the largest.

    It does not where the pixels that differ have no gradient.
    """
    a, b = (bench.classifier.logits(trace.images) for trace in bench.traces)
    return bool((np.abs(a - b).max(axis=1) > 0.1 * np.abs(a).max(axis=1)).any())


def _read_off(bench: Bench, pair: Pair) -> Finding:
    """The finding where these changes recompute the recorded steps to the last pixel."""
    first = pair.changes[0]
    residuals = [trial.residual for trial in bench.trials if trial.suspect == first.suspect]
    as_well = [f"{change.suspect}: {change.text}" for change in pair.as_well]
    if len(pair.changes) > 1:
        as_well = [f"it takes {len(pair.changes)} changes: {', '.join(change.suspect for change in pair.changes)}"]
    text = "; and ".join(change.text for change in pair.changes)
    return Finding("different", first.suspect, text, min(residuals, default=0.0), tuple(as_well))


def _by_scale(bench: Bench, pair: Pair) -> Finding | None:
    """A loss that is multiplied by something small loses its small gradients."""
    names, scales = bench.names, [scale(tape) for tape in pair.tapes]
    if abs(scales[0] / scales[1] - 1) < 0.01:
        return None
    which = int(abs(np.log(scales[1])) >= abs(np.log(scales[0])))
    images = rerun(bench, which, classifier=Rescaled(bench.classifier, scales[1 - which] / scales[which]))
    text = f"{names[1]}'s loss is {scales[1] / scales[0]:.4g} times {names[0]}'s"
    trial = judge(bench, "loss reduction", text, f"{names[which]} itself, rescaled", images, 1 - which)
    return first_meeting(bench) if trial.meets else None


def _by_exact_loss(bench: Bench, pair: Pair, singly: Apart) -> Finding | None:
    """One loss's gradient is float64's, the other's float32's: does the second with an exact one give the first?"""
    exact = [bool(tape.loss.exact[tape.alive].all()) for tape in pair.tapes]
    if exact[0] == exact[1]:
        return None
    which = 0 if exact[1] else 1
    images = rerun(bench, which, classifier=ExactLoss(bench.classifier))
    text = f"{bench.names[which]}'s loss is computed in float32, which near certainty rounds its gradient"
    ran = f"{bench.names[which]} itself, with an exact loss"
    most = min(bench.x.size // 50, singly.pixels // 2)
    trial = judge(bench, "dtype", text, ran, images, 1 - which, most=most)
    return first_meeting(bench) if trial.meets else None


def _try(bench: Bench, change: Change, pair: Pair, settled: bool) -> None:
    """Run the first library again with one change: itself where its parameters can say it, else its stand-in.

    ``settled``: the tape is recomputed to the last pixel. The images may then differ in a few pixels where a gradient
    is zero within rounding.
    """
    bench.report(f"trying: {change.suspect}", len(bench.trials), len(bench.trials) + 1)
    which, arguments = 1, _arguments(bench, change)
    try:
        if change.suspect == "best against last iterate" and settled:
            which = 1 - int(pair.fits[1].habits.returns == "best")
            images = pair.fits[1 - which].left.ends.astype(np.float32)
            ran = f"the last iterate of {bench.names[1 - which]}"
        elif arguments is not None:
            images, ran = rerun(bench, 0, **arguments), f"{bench.names[0]} itself"
        elif change.habits is not None:
            images, ran = _stand_in(bench, change, pair), f"a stand-in of {bench.names[0]}"
        else:
            return
    except SparringError as error:
        bench.notes.append(f"{change.suspect} could not be tried: {error}")
        return
    judge(bench, change.suspect, change.text, ran, images, which, settled=settled)


def _arguments(bench: Bench, change: Change) -> dict[str, Any] | None:
    """The arguments of a rerun of the library itself in which one habit is changed; None where none can change it."""
    habits, params = change.habits, bench.request.params
    if habits is None:
        return None
    other: dict[str, Any] = {}
    whole_step = isinstance(habits.step, float) and habits.floor == "none" and habits.way == "usual"
    if change.suspect == "step" and whole_step:
        key = "eps_step" if "eps_step" in params else "eps"
        other[key] = params[key] * habits.step
    elif change.suspect == "number of steps" and "steps" in params:
        other["steps"] = params["steps"] + habits.steps
    elif change.suspect == "budget" and bench.request.name != "fgsm":
        other["eps"] = params["eps"] * habits.budget
    elif change.suspect == "label source" and habits.labels in ("predicted", "next"):
        clean = bench.classifier.logits(bench.x)
        labels = clean.argmax(axis=1) if habits.labels == "predicted" else (bench.labels + 1) % clean.shape[1]
        return {"labels": labels.astype(np.int64)}
    else:
        return None
    try:
        return {"request": bench.request_with(**other)}
    except InputError:
        return None


def _stand_in(bench: Bench, change: Change, pair: Pair) -> Images:
    """The images of the referee's attack under the first library's habits with one change."""
    assert change.habits is not None
    tape = pair.tapes[0]
    own = tape.points[0] if len(tape.points) else tape.image
    starts = change.starts if change.starts is not None else own.astype(np.float32)
    exact = bool(tape.loss.exact[tape.alive].all())
    habits = replace(change.habits, start="given", exact=exact)
    return simulate(bench.classifier, bench.x, bench.labels, bench.recipe, habits, starts=starts)
