"""A certificate for the terminal: what was measured beside what is allowed, the flips, and the first difference."""

from __future__ import annotations

from typing import Any

from rich.markup import escape
from rich.table import Table

from sparring.suites.certify.certificate import COSINE, TOLERANCE, Certificate

MOST_FLIPS = 12
"""The table lists no more flips than these; the JSON file has all."""


def parts(certificate: Certificate) -> list[Any]:
    """The parts of the text, in order, for ``console.print``."""
    sides = [f"{side['model']} ({side['framework']})" for side in (certificate.a, certificate.b)]
    verdict = "One function." if certificate.passed else "Not the same function."
    style = "green" if certificate.passed else "red"
    data = certificate.data
    texts: list[Any] = [
        escape(f"A: {sides[0]}\nB: {sides[1]}\n{certificate.n} images of {data['name']} ({data['split']})"),
        f"[bold {style}]{verdict}[/bold {style}]" + escape("".join(f"\n  {reason}" for reason in certificate.reasons)),
    ]
    if certificate.first_difference is not None:
        texts.append(escape(_first_difference(certificate)))
    texts.append(_measures(certificate))
    if certificate.flips:
        texts.append(_flips(certificate))
    texts += [escape(f"Note: {note}") for note in certificate.notes]
    return texts


def _first_difference(certificate: Certificate) -> str:
    first = certificate.first_difference
    assert first is not None
    names = f"{first.layer_a or 'no layer'} of A, {first.layer_b or 'no layer'} of B"
    size = f" (largest |Δ| {first.max_abs:.3g})" if first.max_abs is not None else ""
    after = f"\n  before it, {first.after[0]} of A and {first.after[1]} of B still agree" if first.after else ""
    return f"First difference: {names}{size}\n  {first.why}{after}"


def _measures(certificate: Certificate) -> Table:
    logits, gradients = certificate.logits, certificate.gradients
    table = Table(title="A and B compared", title_justify="left")
    for header in ("what", "measured", "allowed"):
        table.add_column(header, overflow="fold")
    relative = f"{logits.max_abs:.2e} ({logits.relative:.1e} of the largest, {logits.scale:.3g})"
    table.add_row(f"{certificate.compared}, max |Δ|", relative, f"{TOLERANCE:g}")
    table.add_row(f"{certificate.compared}, mean |Δ|", f"{logits.mean_abs:.2e}", "")
    ties = f", {logits.ties} ties set apart" if logits.ties else ""
    table.add_row("predicted class agrees", f"{_share(logits.agreement)}{ties}", "100 %")
    if gradients is not None:
        kinks = f", {len(gradients.kinks)} images at kinks set apart" if gradients.kinks else ""
        table.add_row("loss gradient, least cosine", f"{gradients.least:.6f}{kinks}", f"{COSINE}")
        table.add_row("loss gradient, sign agrees", _share(gradients.signs), "")
    else:
        table.add_row("loss gradient", "not compared: see the notes", "")
    for judged in certificate.judged:
        accuracies = f"accuracy {_share(judged.accuracy_a)} in A, {_share(judged.accuracy_b)} in B"
        measure = f"{judged.attack} made on {judged.made_on.upper()}, verdicts that flip"
        table.add_row(measure, f"{len(judged.flips)} of {judged.images} ({accuracies})", "")
    return table


def _flips(certificate: Certificate) -> Table:
    table = Table(title="Images that one model classifies correctly and the other doesn't", title_justify="left")
    for header in ("image", "label", "attack", "made on", "A says", "B says", "margin in A", "margin in B"):
        table.add_column(header)
    for flip in certificate.flips[:MOST_FLIPS]:
        facts = (flip.image, flip.label, flip.attack, flip.made_on.upper(), flip.prediction_a, flip.prediction_b)
        table.add_row(*map(str, facts), f"{flip.margin_a:+.2e}", f"{flip.margin_b:+.2e}")
    if len(certificate.flips) > MOST_FLIPS:
        table.caption = f"and {len(certificate.flips) - MOST_FLIPS} more, in the JSON file"
    return table


def _share(value: float) -> str:
    """A share in percent, never rounded up to 100 %."""
    percent = 100 * value
    return f"{percent:.4g} %" if value in (0, 1) or percent < 99 else f"{int(percent * 1e4) / 1e4:g} %"
