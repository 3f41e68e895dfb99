"""Curves: accuracy by eps, and the losses of a training by epoch."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from sparring.suites.report.figures.drawing import (
    COLORS,
    MARKS,
    PLAIN,
    Figure,
    grid,
    legend_below,
    safe,
    wrapped,
)
from sparring.suites.report.rows import UNDEFENDED, mean_over_seeds
from sparring.suites.report.study import Study, column
from sparring.suites.report.table import HIGH, LOW
from sparring.suites.report.tables.errors import without_eps
from sparring.suites.report.tables.training import stages, trainings

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure as Drawing

STYLES = ("-", "--", ":", "-.")


def by_eps(study: Study) -> Iterator[Figure]:
    """Accuracy by eps, for each data set, model and attack with two values of eps or more; panels are defenses."""
    rows = study.done
    sized = rows[rows["eps"].notna()]
    for key, group in sized.groupby(["dataset", "model", "name", "norm"], sort=False):
        dataset, model, attack, norm = map(str, key)
        if group["eps"].nunique() < 2:
            continue
        yield Figure(
            safe("eps", dataset, model, attack, norm),
            f"Accuracy by eps: {attack} ({norm}) on {dataset}, {model}",
            "At 0: the clean images. Bands: 95 % interval; means over seeds.",
            partial(_draw_eps, group),
        )


def losses(study: Study) -> Iterator[Figure]:
    """Training and validation loss by epoch, for each data set and model; panels are defenses."""
    histories: dict[tuple[str, str], list[tuple[str, str, list[dict[str, Any]]]]] = {}
    for subject, facts in trainings(study):
        history = facts.get("history") or []
        if len(history) > 1:
            base, _, member = (
                subject["model"].partition("/") if re.search(r"/\d+$", subject["model"]) else (subject["model"], "", "")
            )
            histories.setdefault((subject["dataset"], base), []).append((subject["defense"], member, history))
    for (dataset, model), members in histories.items():
        yield Figure(
            safe("loss", dataset, model),
            f"Loss while training: {dataset}, {model}",
            "Solid: training loss; dashed: validation loss; a color for each member of an ensemble; dotted: where the "
            "next stage of a training begins, such as a student's after its teacher's. Losses of different trainings "
            "are not the same function: they are of other targets or images.",
            partial(_draw_losses, members),
        )


def _draw_eps(group: pd.DataFrame) -> Drawing:
    name = column("accuracy")
    group = group.assign(label=without_eps(group))
    several = group["label"].nunique() > 1 or group["route"].nunique() > group["library"].nunique()
    panels = list(dict.fromkeys(zip(group["defense"], group["attacker"], strict=True)))
    lines = list(dict.fromkeys(zip(group["library"], group["variant"], group["label"], strict=True)))
    figure, axes = grid(len(panels), "accuracy")
    for axis, (defense, attacker) in zip(axes, panels, strict=False):
        mine = group[(group["defense"] == defense) & (group["attacker"] == attacker)]
        for i, (library, variant, attack) in enumerate(lines):
            part = mine[(mine["library"] == library) & (mine["variant"] == variant) & (mine["label"] == attack)]
            if part.empty:
                continue
            ends = [end for end in ("", LOW, HIGH) if name + end in part]
            means = mean_over_seeds(part, ["eps"], [name + end for end in ends]).sort_values("eps")
            before = {end: part["clean_accuracy" + end].mean() for end in ends if "clean_accuracy" + end in part}
            clean = [float(before.get(end, np.nan)) for end in ends]
            eps = np.array([0.0, *means["eps"]])
            values = [np.array([first, *means[name + end]]) for first, end in zip(clean, ends, strict=True)]
            label = f"{library}: {attack}" if several else str(library)
            label += f" ({variant})" if variant else ""
            axis.plot(
                eps,
                values[0],
                marker=MARKS[i % len(MARKS)],
                linestyle=STYLES[i % len(STYLES)],
                color=COLORS[i % len(COLORS)],
                label=label,
                markersize=4.5,
                alpha=0.9,
            )
            if len(values) == 3:
                axis.fill_between(eps, values[1], values[2], color=COLORS[i % len(COLORS)], alpha=0.13, linewidth=0)
        title = "undefended" if defense == UNDEFENDED else str(defense)
        axis.set_title(wrapped(f"{title} ({attacker})" if attacker else title, 34))
        axis.set_ylim(0, 1.03)
        axis.grid()
        axis.set_xlabel("eps")
    legend_below(figure, axes[: len(panels)])
    return figure


def _draw_losses(members: list[tuple[str, str, list[dict[str, Any]]]]) -> Drawing:
    panels = list(dict.fromkeys(defense for defense, _, _ in members))
    figure, axes = grid(len(panels), "loss")
    for axis, defense in zip(axes, panels, strict=False):
        lines = [(member, history) for name, member, history in members if name == defense]
        for i, (member, history) in enumerate(lines):
            color = COLORS[i % len(COLORS)]
            first = 1
            for _, epochs in stages(history):
                places = range(first, first + len(epochs))
                first += len(epochs)
                for key, style, word in (("loss", "-", "training"), ("validation_loss", "--", "validation")):
                    values = [float("nan") if entry.get(key) is None else entry[key] for entry in epochs]
                    if not np.isnan(values).all():
                        label = f"{word}, member {member}" if member else word
                        dot = "." if len(epochs) == 1 else ""
                        axis.plot(places, values, style, marker=dot, color=color, label=label)
                if i == 0 and first <= len(history):
                    axis.axvline(first - 0.5, color=PLAIN, linewidth=0.8, linestyle=":")
        axis.set_title(wrapped("undefended" if defense == UNDEFENDED else defense, 34))
        axis.set_xlabel("epoch")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid()
    legend_below(figure, axes[: len(panels)])
    return figure
