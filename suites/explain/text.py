"""An explanation in words and tables for the terminal, and as JSON."""

from __future__ import annotations

import json
from typing import Any

from rich.markup import escape
from rich.table import Table

from sparring.suites.explain.explanation import Explanation
from sparring.suites.explain.paths import Step

MOST_ROWS = 24
"""Of a longer table of steps the middle is left out."""


def parts(found: Explanation) -> list[Any]:
    """What ``console.print`` takes, one after another: the verdict, the parting, the trials, the steps."""
    a, b = found.libraries
    told = ", ".join(f"{key}={_value(value)}" for key, value in found.params.items())
    shown: list[Any] = [f"{escape(found.attack)} ({found.norm}) of {escape(a)} and {escape(b)}: {escape(told)}"]
    shown += [f"[bold]{escape(verdict(found))}[/bold]"]
    shown += [escape(f"It may as well be: {other}") for other in found.as_well]
    shown += [escape(f"Note: {note}") for note in found.notes]
    shown += [escape(f"Known of the pair (ledger): {entry}") for entry in found.ledger]
    if found.first_parting is not None:
        shown.append(escape(parting(found)))
    if found.trials:
        shown.append(_trials(found))
    image = found.first_parting.image if found.first_parting is not None else 0
    shown.append(_steps(found, image))
    return shown


def verdict(found: Explanation) -> str:
    """The finding in one paragraph."""
    a, b = found.libraries
    if found.verdict == "same":
        text = f"No difference: the images of {a} and {b} agree within {found.largest:.2g}."
        if found.rounding:
            text = (
                f"No difference but rounding: in {found.rounding} pixels the gradient is zero within rounding, and its "
                f"sign is noise (the images differ there by up to {found.largest:.2g}). Every step follows one rule."
            )
        return text
    apart = f"The images differ by up to {found.largest:.3g}, in {found.pixels} pixels"
    if found.suspect is None:
        return f"Different, and no one change makes them meet. {apart}."
    return (
        f"Different: {found.suspect}. {found.change}. {apart}; with that changed the largest difference left is "
        f"{found.residual:.2g}."
    )


def parting(found: Explanation) -> str:
    """Where the paths first part."""
    first = found.first_parting
    assert first is not None
    where = ", ".join(f"({c}, {h}, {w})" for c, h, w in first.pixels)
    step = "in what is returned" if first.at_the_end else f"at step {first.step}"
    return (
        f"The paths first part {step}, of image {found.images[first.image]}: by up to {first.largest:.3g}, "
        f"in {first.count} of {first.by.size} pixels; most at (channel, row, column) {where}."
    )


def _trials(found: Explanation) -> Table:
    table = Table(title="One change at a time, and what is left of the difference", title_justify="left")
    for header in ("suspect", "change", "run again", "largest |Δ| left", "pixels left", "meets"):
        table.add_column(header, overflow="fold")
    best: dict[tuple[str, str], Any] = {}
    for trial in found.trials:  # of many values of one parameter the nearest
        key = trial.suspect, trial.ran
        if key not in best or (not trial.meets, trial.pixels) < (not best[key].meets, best[key].pixels):
            best[key] = trial
    for trial in sorted(best.values(), key=lambda one: (not one.meets, one.pixels)):
        cells = (trial.suspect, trial.text, trial.ran, f"{trial.residual:.2g}", str(trial.pixels))
        table.add_row(*map(escape, cells), "yes" if trial.meets else "no")
    return table


def _steps(found: Explanation, image: int) -> Table:
    a, b = found.libraries
    title = f"Image {found.images[image]}, step by step ({escape(a)} | {escape(b)})"
    table = Table(title=title, title_justify="left")
    for header in ("step", "loss", "margin", "distance (l2)", "largest |Δ|"):
        table.add_column(header)
    rows = list(enumerate(found.steps[image]))
    left_out = len(rows) - MOST_ROWS
    if left_out > 0:
        rows = rows[: MOST_ROWS // 2] + rows[-MOST_ROWS // 2 :]
    first = found.first_parting
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


def to_json(found: Explanation) -> str:
    """Everything but the maps of |Δ|, as JSON."""
    first = found.first_parting
    content = {
        **{key: value for key, value in found.__dict__.items() if key not in ("first_parting", "steps", "trials")},
        "named": found.named,
        "first_parting": None if first is None else {k: v for k, v in first.__dict__.items() if k != "by"},
        "trials": [trial.__dict__ for trial in found.trials],
        "steps": [[_step(step) for step in image] for image in found.steps],
    }
    return json.dumps(_finite(content), indent=1)


def _step(step: Step) -> dict[str, Any]:
    return dict(step.__dict__)


def _finite(value: Any) -> Any:
    """JSON has no infinity: it becomes null."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and value - value != 0 else value
