"""Two recorded gradient attacks side by side: which habits they don't share, in the words of the suspects."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from sparring.adapters.protocol import Classifier
from sparring.suites.explain.habits.gradient import ATTACKS, Habits, Recipe, spacing
from sparring.suites.explain.habits.replay import CLOSE, Fit, Tape, changed, fit, measured, replay, tape
from sparring.suites.explain.habits.trace import Trace

Array = npt.NDArray[Any]

SUSPECTS = (
    "start",
    "step",
    "number of steps",
    "projection order",
    "box clip",
    "loss reduction",
    "label source",
    "overshoot",
    "sign of zero",
    "early stop",
    "best against last iterate",
    "batch size",
    "dtype",
    # beyond the usual ones
    "budget",
    "momentum",
    "constant c",
    "loss",
)

_OF = {
    "start": "start",
    "leads_from": "start",
    "way": "step",
    "loss": "loss",
    "step": "step",
    "ahead": "step",
    "floor": "step",
    "budget": "budget",
    "steps": "number of steps",
    "bounds": "box clip",
    "labels": "label source",
    "reduction": "loss reduction",
    "sign_of_zero": "sign of zero",
    "early_stop": "early stop",
    "returns": "best against last iterate",
    "grid": "dtype",
    "where": "dtype",
    "exact": "dtype",
    "momentum": "momentum",
    "decay": "momentum",
    "looks_ahead": "momentum",
}


@dataclass(frozen=True)
class Change:
    """One suspect: what it is in one library and in the other, and the first one's habits with it changed."""

    suspect: str
    text: str
    habits: Habits | None = None
    starts: Array | None = None


@dataclass(frozen=True)
class Pair:
    """What the tapes of two libraries tell. ``left``: pixels of b's tape that a's habits with the changes don't give;
    ``left_of_a``: of a's tape under its own habits."""

    tapes: tuple[Tape, Tape]
    habits: Habits
    fits: tuple[Fit, Fit]
    changes: tuple[Change, ...]
    left: int
    left_of_a: int
    as_well: tuple[Change, ...]


def recordable(attack: str, norm: str | None, params: dict[str, Any]) -> bool:
    """Whether an attack's tape can be read: one gradient a step, from one start."""
    return (attack, norm) in ATTACKS and params.get("restarts", 1) == 1


def compare(a: Trace, b: Trace, classifier: Classifier, recipe: Recipe) -> Pair:
    """Read both tapes, find the habits of the first, then what must be changed in them to give the second."""
    tapes = (tape(a, classifier, recipe), tape(b, classifier, recipe))
    clean = classifier.logits(np.stack([path.image for path in a.paths]))
    fit_a = fit(tapes[0], recipe, Habits(loss="margin" if tapes[0].loss.margin else "cross-entropy"))
    fit_b = fit(tapes[1], recipe, fit_a.habits)
    changes = _from_habits(a.library, b.library, fit_a.habits, fit_b.habits)
    start = _start(a, b, tapes, fit_a.habits, fit_b.habits)
    changes = [*([start] if start else []), *_from_losses(a, b, tapes, clean, recipe, fit_a.habits), *changes]
    changes = _merged(changes)
    named = {change.suspect for change in changes}
    as_well = [
        change
        for habits in (fit_b.as_well if len(changes) == 1 and start is None else ())
        for change in _from_habits(a.library, b.library, fit_a.habits, habits)
        if change.suspect not in named
    ]
    once = tuple({change.suspect: change for change in reversed(as_well)}.values())
    return Pair(tapes, fit_a.habits, (fit_a, fit_b), tuple(changes), fit_b.left.score, fit_a.left.score, once)


def _merged(changes: list[Change]) -> list[Change]:
    """Each suspect once."""
    found: dict[str, Change] = {}
    for change in changes:
        before = found.get(change.suspect)
        text = f"{before.text}; {change.text}" if before else change.text
        habits = change.habits or (before.habits if before else None)
        starts = change.starts if change.starts is not None or before is None else before.starts
        found[change.suspect] = replace(change, text=text, habits=habits, starts=starts)
    return list(found.values())


def nearest(pair: Pair, names: tuple[str, str], recipe: Recipe) -> list[tuple[Change, int]]:
    """Every suspect of the rule, at the value that comes nearest to the second tape, and the pixels that it leaves."""
    best: dict[str, tuple[Change, int]] = {}
    for option in dict.fromkeys(measured(pair.tapes[1], recipe, pair.habits)):
        if option == pair.habits:
            continue
        for change in _from_habits(*names, pair.habits, option):
            left = replay(pair.tapes[1], recipe, option).score
            if change.suspect not in best or left < best[change.suspect][1]:
                best[change.suspect] = (change, left)
    return list(best.values())


def _from_habits(name_a: str, name_b: str, a: Habits, b: Habits) -> list[Change]:
    found: dict[str, list[str]] = {}
    for name in changed(a, b):
        suspect = _of_order(a, b) if name in ("order", "last_order") else _OF[name]
        found.setdefault(suspect, []).append(name)
    changes = []
    for suspect, names in found.items():
        values = {name: getattr(b, name) for name in names}
        text = f"{name_b}: {_say(suspect, b, names)}; {name_a}: {_say(suspect, a, names)}"
        changes.append(Change(suspect, text, replace(a, **values)))
    return changes


def _of_order(a: Habits, b: Habits) -> str:
    def orders(habits: Habits, without: str = "") -> list[tuple[str, ...]]:
        both = (habits.order, habits.last_order or habits.order)
        return [tuple(name for name in order if name != without) for order in both]

    if [sorted(order) for order in orders(a)] == [sorted(order) for order in orders(b)]:
        return "projection order"
    return "box clip" if orders(a, "box") == orders(b, "box") else "projection order"


def _say(suspect: str, habits: Habits, names: list[str]) -> str:
    if suspect == "step":
        parts = []
        if "step" in names:
            factors = np.atleast_1d(np.array(habits.step))
            parts.append(f"{', '.join(f'{one:.4g}' for one in factors[:8])} times the step asked for")
        if "way" in names:
            parts.append(f"the {'usual direction' if habits.way == 'usual' else 'gradient ' + habits.way}")
        if "floor" in names:
            parts.append(f"the gradient's length {'as it is' if habits.floor == 'none' else habits.floor}")
        return " and ".join(parts)
    if suspect == "start":
        return "the first step leads from " + ("the image" if habits.leads_from == "image" else "where it starts")
    if suspect == "number of steps":
        return f"{habits.steps:+d} steps" if habits.steps else "the steps asked for"
    if suspect in ("projection order", "box clip") and "bounds" not in names:
        words = {"step": "step", "project": "projection onto the ball", "box": "clip to the box"}
        said = ", ".join(words[name] for name in habits.order)
        last = "" if habits.last_order is None else f" (at the end: {', '.join(words[n] for n in habits.last_order)})"
        missing = [words[name] for name in ("project", "box") if name not in habits.order]
        return (
            said + last + (f"; no {' and no '.join(missing)}" + (" before the end" if last else "") if missing else "")
        )
    if suspect == "box clip":
        return f"clips to [{habits.bounds[0]:.4g}, {habits.bounds[1]:.4g}]"
    if suspect == "budget":
        return f"{habits.budget:.4g} times eps"
    if suspect == "sign of zero":
        return f"the sign of 0 is {habits.sign_of_zero:g}"
    if suspect == "early stop":
        return {
            "never": "goes on to the last step",
            "before a step": "stops an image that is misclassified",
            "after a step": "stops an image that is misclassified, after its first step",
            "no progress": "stops an image whose loss no longer grows",
        }[habits.early_stop]
    if suspect == "best against last iterate":
        return f"returns the {habits.returns} iterate"
    if suspect == "dtype":
        what = {
            "iterate": "every iterate",
            "query": "what the model sees",
            "output": "the images returned",
            "sum": "the sum of point and step",
        }
        return f"{habits.grid} in {what.get(habits.where, 'the gradient')}" if habits.grid else "float32"
    if suspect == "momentum":
        ahead = "" if habits.looks_ahead else ", without looking ahead"
        return f"momentum {habits.momentum}, {habits.decay:g} times the decay asked for{ahead}"
    return ", ".join(f"{name} = {getattr(habits, name)}" for name in names)


def _start(a: Trace, b: Trace, tapes: tuple[Tape, Tape], habits_a: Habits, habits_b: Habits) -> Change | None:
    both = (tapes[0].counts > 0) & (tapes[1].counts > 0)
    if not both.any():
        return None
    first, second = tapes[0].points[0], tapes[1].points[0]
    slack = sum(
        2 * spacing(np.maximum(first, 0.25), habits.grid) if habits.where in ("iterate", "query") else np.zeros(1)
        for habits in (habits_a, habits_b)
    )
    off = np.abs(first - second)[both]
    if not (off > CLOSE + np.broadcast_to(slack, first.shape)[both]).any():
        return None
    away = [np.abs(tape.points[0] - tape.image)[both].max() for tape in tapes]
    said = ["at the image" if far < CLOSE else f"up to {far:.3g} from the image" for far in away]
    starts = np.where(both[:, None, None, None], second, tapes[1].image).astype(np.float32)
    text = f"{b.library} starts {said[1]}; {a.library} {said[0]}" + (
        f", and they part by up to {off.max():.3g}" if all(far >= CLOSE for far in away) else ""
    )
    return Change("start", text, replace(habits_a, start="given"), starts)


def _from_losses(
    a: Trace, b: Trace, tapes: tuple[Tape, Tape], clean: Array, recipe: Recipe, habits: Habits
) -> list[Change]:
    found = []
    sources = [label_source(each, clean) for each in tapes]
    if sources[0] != sources[1]:
        words = {
            "given": "the labels that it was given",
            "predicted": "the model's own predictions of the clean images",
            "current": "what the model says at each step",
            "next": "the class after the label",
            "other": "other labels than those given",
            "none": "no label's cross-entropy",
            "margin": "the margin, the best other logit minus the label's",
        }
        suspect = "loss" if {"none", "margin"} & set(sources) else "label source"
        usable = sources[1] in ("given", "predicted", "current", "next")
        option = replace(habits, labels=cast(Any, sources[1]), loss="cross-entropy") if usable else None
        option = replace(habits, labels="given", loss="margin") if sources[1] == "margin" else option
        if suspect == "loss":
            words["given"] = "the cross-entropy with the labels that it was given"
        text = f"{b.library}'s loss takes {words[sources[1]]}; {a.library}'s {words[sources[0]]}"
        found.append(Change(suspect, text, option))
    coarse = [bool((each.loss.error[each.alive & (each.loss.label >= 0)] > 2e-5).any()) for each in tapes]
    if coarse[0] != coarse[1]:
        name = (b if coarse[1] else a).library
        found.append(Change("dtype", f"{name}'s loss is computed in less than float32", None))
    return found


def scale(tape: Tape) -> float:
    """What a library multiplies its loss with, where one number is enough to tell; else 1."""
    readable = tape.alive & (tape.loss.label >= 0) & (tape.loss.error < 1e-3) & (tape.loss.size > 1e-2)
    found = np.abs(tape.loss.scale[readable])
    return float(np.median(found)) if len(found) and np.ptp(found) < 1e-3 * found.max() else 1.0


def label_source(tape: Tape, clean: Array) -> str:
    """Whose labels the cotangents show: ``given``, ``predicted``, ``current``, ``next``, ``other``.

    ``margin`` where the loss is the margin of the labels, ``none`` where it is neither.
    """
    alive = tape.alive
    label = tape.loss.label
    if tape.loss.margin:
        return "margin"
    if (label[alive] < 0).any():
        return "none"

    def agrees(whose: Array) -> bool:
        return bool((label == whose)[alive].all())

    def among_the_best(logits: Array) -> bool:  # of classes that tie, any
        chosen = np.take_along_axis(logits, label[..., None], axis=-1)[..., 0]
        return bool((chosen >= logits.max(axis=-1) - 1e-6)[alive].all())

    if agrees(tape.labels):
        return "given"
    if among_the_best(np.broadcast_to(clean, (*label.shape, clean.shape[-1]))):
        return "predicted"
    if among_the_best(tape.logits[:-1]):
        return "current"
    return "next" if agrees((tape.labels + 1) % clean.shape[-1]) else "other"
