"""An explanation in words and tables for the terminal, and as JSON."""

from __future__ import annotations

import json
from typing import Any

from rich.markup import escape
from rich.table import Table

from sparring.suites.explain.explanation import Explanation
from sparring.suites.explain.paths import Step

MOST_ROWS = 24
"""A longer table of steps leaves out its middle."""


def parts(explanation: Explanation) -> list[Any]:
    """The parts of the text, in order, for ``console.print``: the verdict, the parting, the trials, the steps."""
    a, b = explanation.libraries
    params = ", ".join(f"{key}={_value(value)}" for key, value in explanation.params.items())
    attack = f"{escape(explanation.attack)} ({explanation.norm})"
    texts: list[Any] = [f"{attack} of {escape(a)} and {escape(b)}: {escape(params)}"]
    texts += [f"[bold]{escape(verdict(explanation))}[/bold]"]
    texts += [escape(f"It may as well be: {other}") for other in explanation.as_well]
    texts += [escape(f"Note: {note}") for note in explanation.notes]
    texts += [escape(f"Known of the pair (ledger): {entry}") for entry in explanation.ledger]
    if explanation.first_parting is not None:
        texts.append(escape(parting(explanation)))
    if explanation.trials:
        texts.append(_trials(explanation))
    image = explanation.first_parting.image if explanation.first_parting is not None else 0
    texts.append(_steps(explanation, image))
    return texts


def verdict(explanation: Explanation) -> str:
    """The verdict in one paragraph."""
    a, b = explanation.libraries
    largest, pixels = explanation.largest, explanation.pixels
    if explanation.verdict == "same" and explanation.rounding:
        return (
            f"No difference but rounding: in {explanation.rounding} pixels the gradient is zero within rounding, and "
            f"its sign is noise (the images differ there by up to {largest:.2g}). Every step follows one rule."
        )
    if explanation.verdict == "same":
        return f"No difference: the images of {a} and {b} agree within {largest:.2g}."
    apart = f"The images differ by up to {largest:.3g}, in {pixels} pixels"
    if explanation.suspect is None:
        return f"Different, and no one change makes them meet. {apart}."
    return (
        f"Different: {explanation.suspect}. {explanation.change}. {apart}; with that changed the largest difference "
        f"left is {explanation.residual:.2g}."
    )


def parting(explanation: Explanation) -> str:
    """Say where the paths first part."""
    first = explanation.first_parting
    assert first is not None
    where = ", ".join(f"({c}, {h}, {w})" for c, h, w in first.pixels)
    step = "in what is returned" if first.at_the_end else f"at step {first.step}"
    return (
        f"The paths first part {step}, of image {explanation.images[first.image]}: by up to {first.largest:.3g}, "
        f"in {first.count} of {first.by.size} pixels; most at (channel, row, column) {where}."
    )


def _trials(explanation: Explanation) -> Table:
    table = Table(title="One change at a time, and what is left of the difference", title_justify="left")
    for header in ("suspect", "change", "run again", "largest |Δ| left", "pixels left", "meets"):
        table.add_column(header, overflow="fold")
    best: dict[tuple[str, str], Any] = {}
    for trial in explanation.trials:  # of many values of one parameter, keep the nearest
        key = trial.suspect, trial.ran
        if key not in best or (not trial.meets, trial.pixels) < (not best[key].meets, best[key].pixels):
            best[key] = trial
    for trial in sorted(best.values(), key=lambda trial: (not trial.meets, trial.pixels)):
        cells = (trial.suspect, trial.text, trial.ran, f"{trial.residual:.2g}", str(trial.pixels))
        table.add_row(*map(escape, cells), "yes" if trial.meets else "no")
    return table


def _steps(explanation: Explanation, image: int) -> Table:
    a, b = explanation.libraries
    title = f"Image {explanation.images[image]}, step by step ({escape(a)} | {escape(b)})"
    table = Table(title=title, title_justify="left")
    for header in ("step", "loss", "margin", "distance (l2)", "largest |Δ|"):
        table.add_column(header)
    rows = list(enumerate(explanation.steps[image]))
    left_out = len(rows) - MOST_ROWS
    if left_out > 0:
        rows = rows[: MOST_ROWS // 2] + rows[-MOST_ROWS // 2 :]
    first = explanation.first_parting
    for index, step in rows:
        here = first is not None and first.image == image and first.step == index
        name = f"{index}{' ← parts' if here else ''}"
        table.add_row(name, *(_both(pair) for pair in (step.loss, step.margin, step.distance)), f"{step.apart:.2g}")
    if left_out > 0:
        table.caption = f"{left_out} steps in the middle are left out; the plot and the JSON have them all"
    return table


def _both(pair: tuple[float | None, float | None]) -> str:
    return " | ".join("–" if value is None else f"{value:.4g}" for value in pair)


def _value(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def to_json(explanation: Explanation) -> str:
    """The explanation as JSON, without the maps of |Δ|."""
    first = explanation.first_parting
    content = {
        **{
            key: value for key, value in explanation.__dict__.items() if key not in ("first_parting", "steps", "trials")
        },
        "named": explanation.named,
        "first_parting": None if first is None else {k: v for k, v in first.__dict__.items() if k != "by"},
        "trials": [trial.__dict__ for trial in explanation.trials],
        "steps": [[_step(step) for step in image] for image in explanation.steps],
    }
    return json.dumps(_finite(content), indent=1)


def _step(step: Step) -> dict[str, Any]:
    return dict(step.__dict__)


def _finite(value: Any) -> Any:
    """The value with null in place of every infinity, which JSON lacks."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and value - value != 0 else value
