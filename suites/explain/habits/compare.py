"""Two recorded gradient attacks side by side: the habits that they don't share, in the words of the suspects."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from sparring.adapters.protocol import Classifier
from sparring.suites.explain.habits.gradient import ATTACKS, Habits, Recipe, spacing
from sparring.suites.explain.habits.replay import CLOSE, Fit, Tape, changed, fit, options, replay, tape
from sparring.suites.explain.habits.trace import Trace

Array = npt.NDArray[Any]

_SUSPECT_OF = {
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
    """One suspect, its text for both libraries, and the first library's habits with the suspect changed.

    ``starts`` (N, C, H, W): where the second library starts, if the suspect is the start.
    """

    suspect: str
    text: str
    habits: Habits | None = None
    starts: Array | None = None


@dataclass(frozen=True)
class Pair:
    """The tapes of two libraries a and b, the first one's habits, and the changes that give the second one's.

    ``left``: how many pixels of b's tape these changes don't explain. ``left_of_a``: how many pixels of a's tape its
    own habits don't explain. ``as_well``: changes of another suspect that explain b's tape as well.
    """

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
    """Read both tapes, find the habits of the first, then the changes in them that give the second."""
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
    """The changes with each suspect once."""
    merged: dict[str, Change] = {}
    for change in changes:
        before = merged.get(change.suspect)
        text = f"{before.text}; {change.text}" if before else change.text
        habits = change.habits or (before.habits if before else None)
        starts = change.starts if change.starts is not None or before is None else before.starts
        merged[change.suspect] = replace(change, text=text, habits=habits, starts=starts)
    return list(merged.values())


def nearest(pair: Pair, names: tuple[str, str], recipe: Recipe) -> list[tuple[Change, int]]:
    """Every suspect of the rule with the value that comes nearest to the second tape, and how many pixels it leaves."""
    best: dict[str, tuple[Change, int]] = {}
    for option in dict.fromkeys(options(pair.tapes[1], recipe, pair.habits)):
        if option == pair.habits:
            continue
        for change in _from_habits(*names, pair.habits, option):
            left = replay(pair.tapes[1], recipe, option).score
            if change.suspect not in best or left < best[change.suspect][1]:
                best[change.suspect] = (change, left)
    return list(best.values())


def _from_habits(name_a: str, name_b: str, a: Habits, b: Habits) -> list[Change]:
    habits_of: dict[str, list[str]] = {}
    for name in changed(a, b):
        suspect = _of_order(a, b) if name in ("order", "last_order") else _SUSPECT_OF[name]
        habits_of.setdefault(suspect, []).append(name)
    changes = []
    for suspect, names in habits_of.items():
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
        order = ", ".join(words[name] for name in habits.order)
        last = "" if habits.last_order is None else f" (at the end: {', '.join(words[n] for n in habits.last_order)})"
        missing = [words[name] for name in ("project", "box") if name not in habits.order]
        without = f"; no {' and no '.join(missing)}" + (" before the end" if last else "") if missing else ""
        return order + last + without
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
    distances = [np.abs(tape.points[0] - tape.image)[both].max() for tape in tapes]
    where = ["at the image" if far < CLOSE else f"up to {far:.3g} from the image" for far in distances]
    starts = np.where(both[:, None, None, None], second, tapes[1].image).astype(np.float32)
    text = f"{b.library} starts {where[1]}; {a.library} {where[0]}"
    if all(far >= CLOSE for far in distances):
        text += f", and they part by up to {off.max():.3g}"
    return Change("start", text, replace(habits_a, start="given"), starts)


def _from_losses(
    a: Trace, b: Trace, tapes: tuple[Tape, Tape], clean: Array, recipe: Recipe, habits: Habits
) -> list[Change]:
    changes = []
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
        changes.append(Change(suspect, text, option))
    coarse = [bool((each.loss.error[each.alive & (each.loss.label >= 0)] > 2e-5).any()) for each in tapes]
    if coarse[0] != coarse[1]:
        name = (b if coarse[1] else a).library
        changes.append(Change("dtype", f"{name}'s loss is computed in less than float32", None))
    return changes


def scale(tape: Tape) -> float:
    """The factor by which a library multiplies its loss, if it is one number throughout; else 1."""
    readable = tape.alive & (tape.loss.label >= 0) & (tape.loss.error < 1e-3) & (tape.loss.size > 1e-2)
    scales = np.abs(tape.loss.scale[readable])
    return float(np.median(scales)) if len(scales) and np.ptp(scales) < 1e-3 * scales.max() else 1.0


def label_source(tape: Tape, clean: Array) -> str:
    """The labels that the cotangents show: ``given``, ``predicted``, ``current``, ``next`` or ``other``.

    ``margin`` where the loss is the margin of the labels, ``none`` where it is neither a margin nor a cross-entropy.
    """
    alive = tape.alive
    label = tape.loss.label
    if tape.loss.margin:
        return "margin"
    if (label[alive] < 0).any():
        return "none"

    def agrees(labels: Array) -> bool:
        return bool((label == labels)[alive].all())

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
