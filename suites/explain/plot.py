"""An explanation as a picture: loss, margin and distance at every step of both libraries, and where they part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from sparring.adapters.errors import InputError
from sparring.suites.explain.explanation import Explanation
from sparring.suites.explain.text import parting, verdict

FORMATS = (".png", ".svg", ".pdf")


def check_path(path: Path) -> None:
    """Raise ``InputError`` unless a plot can be written there."""
    if path.suffix not in FORMATS:
        raise InputError(f"--plot {path}: the name must end in {', '.join(FORMATS)}")
    if not path.parent.is_dir():
        raise InputError(f"--plot {path}: there is no folder {path.parent}")


def write(explanation: Explanation, path: Path) -> None:
    """Draw the image that parts first (or else the first one) into a file: .png, .svg or .pdf."""
    check_path(path)
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    first = explanation.first_parting
    image = first.image if first is not None else 0
    figure = Figure(figsize=(15, 4.2), layout="constrained")
    axes = figure.subplots(1, 4)
    for axis, name in zip(axes, ("loss", "margin", "distance"), strict=False):
        for side, (library, style) in enumerate(zip(explanation.libraries, ("-o", "--x"), strict=True)):
            values = [getattr(step, name)[side] for step in explanation.steps[image]]
            points = [(index, value) for index, value in enumerate(values) if value is not None]
            axis.plot(*zip(*points, strict=True), style, markersize=4, label=library)
        if first is not None:
            axis.axvline(first.step, color="grey", linestyle=":", label="parts")
        axis.set(title=name if name != "distance" else "distance (l2)", xlabel="step")
    axes[0].legend()
    _map(figure, axes[3], explanation)
    words = verdict(explanation) if first is None else f"{verdict(explanation)}\n{parting(explanation)}"
    figure.suptitle(_folded(words, 150), fontsize=9)
    try:
        figure.savefig(path)
    except OSError as error:
        raise InputError(f"--plot {path}: can't be written: {error.strerror}") from error


def _map(figure: Any, axis: Any, explanation: Explanation) -> None:
    axis.set_title("largest |Δ| over channels, where they part")
    axis.set_axis_off()
    if explanation.first_parting is not None:
        drawn = axis.imshow(np.asarray(explanation.first_parting.by).max(axis=0), cmap="magma")
        figure.colorbar(drawn, ax=axis, shrink=0.8)


def _folded(text: str, width: int) -> str:
    import textwrap

    return "\n".join(line for part in text.splitlines() for line in textwrap.wrap(part, width))
