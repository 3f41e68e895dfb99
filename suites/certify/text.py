"""A certificate for the terminal: what was measured beside what is allowed, the flips, and the first difference."""

from __future__ import annotations

from typing import Any

from rich.markup import escape
from rich.table import Table

from sparring.suites.certify.certificate import COSINE, TOLERANCE, Certificate

MOST_FLIPS = 12
"""More are in the JSON file."""


def parts(found: Certificate) -> list[Any]:
    """What ``console.print`` takes, one after another."""
    sides = [f"{side['model']} ({side['framework']})" for side in (found.a, found.b)]
    verdict = "One function." if found.passed else "Not the same function."
    style = "green" if found.passed else "red"
    shown: list[Any] = [
        escape(f"A: {sides[0]}\nB: {sides[1]}\n{found.n} images of {found.data['name']} ({found.data['split']})"),
        f"[bold {style}]{verdict}[/bold {style}]" + escape("".join(f"\n  {reason}" for reason in found.reasons)),
    ]
    if found.first_difference is not None:
        shown.append(escape(_first_difference(found)))
    shown.append(_measures(found))
    if found.flips:
        shown.append(_flips(found))
    shown += [escape(f"Note: {note}") for note in found.notes]
    return shown


def _first_difference(found: Certificate) -> str:
    first = found.first_difference
    assert first is not None
    names = f"{first.layer_a or 'no layer'} of A, {first.layer_b or 'no layer'} of B"
    size = f" (largest |Δ| {first.max_abs:.3g})" if first.max_abs is not None else ""
    after = f"\n  before it, {first.after[0]} of A and {first.after[1]} of B still agree" if first.after else ""
    return f"First difference: {names}{size}\n  {first.why}{after}"


def _measures(found: Certificate) -> Table:
    logits, gradients = found.logits, found.gradients
    table = Table(title="A and B compared", title_justify="left")
    for header in ("what", "measured", "allowed"):
        table.add_column(header, overflow="fold")
    relative = f"{logits.max_abs:.2e} ({logits.relative:.1e} of the largest, {logits.scale:.3g})"
    table.add_row(f"{found.compared}, max |Δ|", relative, f"{TOLERANCE:g}")
    table.add_row(f"{found.compared}, mean |Δ|", f"{logits.mean_abs:.2e}", "")
    ties = f", {logits.ties} ties set apart" if logits.ties else ""
    table.add_row("predicted class agrees", f"{_share(logits.agreement)}{ties}", "100 %")
    if gradients is not None:
        kinks = f", {len(gradients.kinks)} images at kinks set apart" if gradients.kinks else ""
        table.add_row("loss gradient, least cosine", f"{gradients.least:.6f}{kinks}", f"{COSINE}")
        table.add_row("loss gradient, sign agrees", _share(gradients.signs), "")
    else:
        table.add_row("loss gradient", "not compared: see the notes", "")
    for one in found.judged:
        accuracies = f"accuracy {_share(one.accuracy_a)} in A, {_share(one.accuracy_b)} in B"
        what = f"{one.attack} made on {one.made_on.upper()}, verdicts that flip"
        table.add_row(what, f"{len(one.flips)} of {one.images} ({accuracies})", "")
    return table


def _flips(found: Certificate) -> Table:
    table = Table(title="Images that one reads rightly and the other not", title_justify="left")
    for header in ("image", "label", "attack", "made on", "A says", "B says", "margin in A", "margin in B"):
        table.add_column(header)
    for flip in found.flips[:MOST_FLIPS]:
        said = (flip.image, flip.label, flip.attack, flip.made_on.upper(), flip.prediction_a, flip.prediction_b)
        table.add_row(*map(str, said), f"{flip.margin_a:+.2e}", f"{flip.margin_b:+.2e}")
    if len(found.flips) > MOST_FLIPS:
        table.caption = f"and {len(found.flips) - MOST_FLIPS} more, in the JSON file"
    return table


def _share(value: float) -> str:
    """In percent, and never rounded up to all."""
    percent = 100 * value
    return f"{percent:.4g} %" if value in (0, 1) or percent < 99 else f"{int(percent * 1e4) / 1e4:g} %"
