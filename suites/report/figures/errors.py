"""Top-1 and top-5 error by eps, of data sets with more than ten classes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from sparring.suites.report.figures.drawing import COLORS, MARKS, Figure, grid, legend_below, safe, wrapped
from sparring.suites.report.rows import UNDEFENDED, mean_over_seeds
from sparring.suites.report.study import Study
from sparring.suites.report.table import HIGH, LOW
from sparring.suites.report.tables.errors import ERRORS, sized, without_eps

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure as Drawing

STYLES = {"top1_error": "-", "top5_error": "--"}


def errors(study: Study) -> Iterator[Figure]:
    """A figure for each data set and attack with several values of eps; panels are models with their defenses."""
    rows = sized(study)
    if "top5_error" not in rows:
        return
    rows["label"] = without_eps(rows)
    rows = rows[rows["top5_error"].notna()]
    for key, group in rows.groupby(["dataset", "name", "norm"], sort=False, dropna=False):
        dataset, attack, norm = map(str, key)
        yield Figure(
            safe("errors", dataset, attack, norm),
            f"Errors by eps: {attack} ({norm}) on {dataset}",
            "Solid: top-1 error; dashed: top-5. At 0: the clean images; eps in the units of the variant. Bands: 95 % "
            "interval; means over seeds.",
            partial(_draw, group),
        )


def _draw(group: pd.DataFrame) -> Drawing:
    panels = list(dict.fromkeys(zip(group["model"], group["defense"], group["attacker"], strict=True)))
    lines = list(dict.fromkeys(zip(group["library"], group["variant"], group["label"], strict=True)))
    several = group["label"].nunique() > 1
    figure, axes = grid(len(panels), "error", width=3.6, height=2.9)
    for axis, (model, defense, attacker) in zip(axes, panels, strict=False):
        mine = group[(group["model"] == model) & (group["defense"] == defense) & (group["attacker"] == attacker)]
        for i, (library, variant, attack) in enumerate(lines):
            part = mine[(mine["library"] == library) & (mine["variant"] == variant) & (mine["label"] == attack)]
            for name in ERRORS if len(part) else ():
                ends = [end for end in ("", LOW, HIGH) if name + end in part]
                means = mean_over_seeds(part, ["eps"], [name + end for end in ends]).sort_values("eps")
                clean = [part[f"clean_{name}{end}"].mean() for end in ends]
                values = [np.array([first, *means[name + end]]) for first, end in zip(clean, ends, strict=True)]
                eps, color = np.array([0.0, *means["eps"]]), COLORS[i % len(COLORS)]
                words = [str(library), *([attack] if several else []), *([variant] if variant else [])]
                axis.plot(
                    eps,
                    values[0],
                    STYLES[name],
                    marker=MARKS[i % len(MARKS)],
                    color=color,
                    markersize=4,
                    label=", ".join(words) if name == "top1_error" else None,
                    alpha=0.9,
                )
                if len(values) == 3:
                    axis.fill_between(eps, values[1], values[2], color=color, alpha=0.1, linewidth=0)
        words = [model, *([defense] if defense != UNDEFENDED else []), *([attacker] if attacker else [])]
        axis.set_title(wrapped(", ".join(words), 36))
        axis.set_ylim(0, 1.03)
        axis.set_xlabel("eps")
        axis.grid()
    legend_below(figure, axes[: len(panels)])
    return figure
