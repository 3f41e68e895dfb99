"""Confusion matrices: what each class is taken for, on the clean images and under each attack."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from sparring.suites.report.figures.drawing import COLORS, INK, Figure, blank, safe, wrapped
from sparring.suites.report.rows import UNDEFENDED, classes, without_idle_control
from sparring.suites.report.study import Study, class_names
from sparring.suites.results import metrics

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure as Drawing

FEW = 12
"""With at most so many classes, cells show numbers and axes show class names."""
MOST = 100
"""With more classes there is no figure: nobody could distinguish its cells."""
ON_COLOR = "#101010"
"""The color of numbers on a filled cell, which is light on every page."""


def confusion(study: Study) -> Iterator[Figure]:
    """One figure for each data set, model, defense, attacker and variant: the clean images, then each attack.

    Data with more than ``MOST`` classes have none.
    """
    counts = classes(study.rows, study.arrays)
    names = class_names(study)
    for (dataset, model, defense, attacker, variant), group in without_idle_control(study.done).groupby(
        ["dataset", "model", "defense", "attacker", "variant"], sort=False
    ):
        first = group.drop_duplicates("attack")
        if counts.get(str(dataset), MOST + 1) > MOST:
            continue
        setting = ", ".join(filter(None, (str(attacker), str(variant))))
        subject = " ".join(filter(None, (str(defense), f"({setting})" if setting else "")))
        size, labels = counts[str(dataset)], names.get(str(dataset), [])
        yield Figure(
            safe("confusion", str(dataset), str(model), "" if subject == UNDEFENDED else subject),
            f"Confusion: {dataset}, {model}" + ("" if subject == UNDEFENDED else f", {subject}"),
            "Rows: the true class; columns: what it is taken for; the fuller, the larger the share of the row. Each "
            "attack by the first library that has it, first seed.",
            partial(_draw, study, first, size, labels),
        )


def _draw(study: Study, rows: pd.DataFrame, size: int, labels: list[str]) -> Drawing:
    stored = [study.arrays(str(cell)) for cell in rows["cell_id"]]
    panels = [("clean", metrics.confusion(stored[0]["y"], stored[0]["pred_clean"], size))]
    for attack, library, arrays in zip(rows["attack"], rows["library"], stored, strict=True):
        panels.append((f"{attack} ({library})", metrics.confusion(arrays["y"], arrays["pred_adv"], size)))
    across = min(3, len(panels))
    down = math.ceil(len(panels) / across)
    side = 3.4
    figure = blank(side * across, (side + 0.15) * down)
    axes = figure.subplots(down, across, squeeze=False).ravel()
    for axis, (title, counts) in zip(axes, panels, strict=False):
        _panel(axis, title, counts, labels)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    return figure


def _panel(axis: Any, title: str, counts: np.ndarray, labels: list[str]) -> None:
    from matplotlib.colors import to_rgb

    size = len(counts)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    picture = np.empty((size, size, 4))
    picture[..., :3] = to_rgb(COLORS[4])
    picture[..., 3] = np.where(counts > 0, 0.08 + 0.92 * share, 0)  # transparent: on a page of any color
    axis.imshow(picture, interpolation="none", aspect="equal")
    axis.set_title(wrapped(title, 38))
    axis.set_xlabel("taken for")
    axis.set_ylabel("true class")
    for side in ("top", "right"):
        axis.spines[side].set_visible(True)
    if size <= FEW:
        shown = [wrapped(str(label), 12) for label in labels] if len(labels) == size else list(map(str, range(size)))
        long = max(map(len, shown)) > 2
        axis.set_xticks(range(size), shown, rotation=90 if long else 0, fontsize=7.5)
        axis.set_yticks(range(size), shown, fontsize=7.5)
        for i, j in zip(*np.nonzero(counts), strict=True):
            axis.text(
                j,
                i,
                str(counts[i, j]),
                ha="center",
                va="center",
                fontsize=6.5,
                color=ON_COLOR if share[i, j] > 0.5 else INK,
            )
    else:
        step = 5 if size <= 60 else math.ceil(size / 10)
        ticks = range(0, size, step)
        axis.set_xticks(ticks, map(str, ticks), fontsize=7.5)
        axis.set_yticks(ticks, map(str, ticks), fontsize=7.5)
    axis.tick_params(length=2)
