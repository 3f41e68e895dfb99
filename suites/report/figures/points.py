"""Points: each model before and under attack, accuracy against time, published against measured."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from sparring.suites.report import published as publication
from sparring.suites.report.figures.drawing import (
    COLORS,
    INK,
    MARKS,
    PLAIN,
    Figure,
    blank,
    grid,
    legend_below,
    logarithmic,
    safe,
    wrapped,
)
from sparring.suites.report.rows import KEYS, LOSSY, UNDEFENDED, mean_over_seeds
from sparring.suites.report.study import Study, column
from sparring.suites.report.tables.scores import summary

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure as Drawing


def overview(study: Study) -> Iterator[Figure]:
    """Clean, mean and lowest accuracy of every model and defense; a figure for each data set."""
    for table in summary(study):
        for dataset, rows in table.frame.groupby("dataset", sort=False):
            yield Figure(
                safe("overview", str(dataset)),
                f"Clean and under attack: {dataset}",
                "Accuracy on the clean images, its mean over all attacks and libraries, and the lowest.",
                partial(_draw_overview, rows),
            )


def against_time(study: Study) -> Iterator[Figure]:
    """Accuracy under each attack against its time; only undefended models, where there are any."""
    rows = study.attacks
    rows = rows[rows["space"] != LOSSY]
    if rows["variant"].nunique() > 1:
        rows = rows.assign(
            attack=[f"{attack} ({variant})" for attack, variant in zip(rows["attack"], rows["variant"], strict=True)]
        )
    if (rows["defense"] == UNDEFENDED).any():
        rows = rows[rows["defense"] == UNDEFENDED]
    for dataset, group in rows.groupby("dataset", sort=False):
        if group[["attack", "library"]].drop_duplicates().shape[0] > 1:
            yield Figure(
                safe("time", str(dataset)),
                f"Accuracy against time: {dataset}",
                "Each point is one attack of one library on the undefended model; left and down: faster and stronger.",
                partial(_draw_time, group),
            )


def published(study: Study) -> Iterator[Figure]:
    """Published values against measured ones; a panel for each metric."""
    frame = publication.compare(study)
    frame = frame[frame["measured"].notna() & ~frame["metric"].str.contains("seconds")]
    if len(frame):
        yield Figure(
            "published",
            "Published and measured",
            "On the line, both are the same; whiskers: 95 % interval of the measured value.",
            partial(_draw_published, frame),
        )


def _draw_overview(rows: pd.DataFrame) -> Drawing:
    labels = []
    for row in rows.to_dict("records"):
        defense = "" if row["defense"] == UNDEFENDED else f", {row['defense']}"
        setting = ", ".join(filter(None, (row["attacker"], row["variant"])))
        attacker = f" ({setting})" if setting else ""
        labels.append(wrapped(f"{row['model']}{defense}{attacker}", 46))
    places, heights, top = [], [], 0.0
    for label in labels:
        lines = label.count("\n") + 1
        places.append(top + 0.5 * lines)
        heights.append(lines)
        top += lines + 0.35
    figure = blank(8.5, 0.7 + 0.19 * top)
    axis = figure.subplots()
    clean, mean, low = (rows[name].to_numpy() for name in ("clean_accuracy", "mean_accuracy", "lowest_accuracy"))
    axis.hlines(places, np.minimum(clean, low), np.maximum(clean, low), color=PLAIN, alpha=0.5, linewidth=2.5)
    for values, marker, color, word in (
        (clean, "o", PLAIN, "clean"),
        (mean, "D", COLORS[0], "mean under attack"),
        (low, "v", COLORS[5], "lowest"),
    ):
        axis.plot(values, places, marker, color=color, label=word, markersize=6.5, linestyle="none")
    axis.set_yticks(places, labels)
    axis.set_ylim(top, -0.3)
    axis.set_xlim(-0.02, 1.02)
    axis.set_xlabel("accuracy")
    axis.grid(axis="x")
    axis.tick_params(axis="y", length=0)
    axis.spines["left"].set_visible(False)
    legend_below(figure, [axis])
    return figure


def _draw_time(group: pd.DataFrame) -> Drawing:
    means = mean_over_seeds(group, KEYS, [column("accuracy"), "seconds_per_image"])
    attacks, libraries = list(dict.fromkeys(group["attack"])), list(dict.fromkeys(group["library"]))
    models = list(dict.fromkeys(group["model"]))
    figure, axes = grid(len(models), "accuracy under attack", width=3.6, height=2.9)
    for axis, model in zip(axes, models, strict=False):
        for row in means[means["model"] == model].to_dict("records"):
            i, k = attacks.index(row["attack"]), libraries.index(row["library"])
            axis.plot(
                row["seconds_per_image"],
                row[column("accuracy")],
                MARKS[k % len(MARKS)],
                linestyle="none",
                color=COLORS[i % len(COLORS)],
                markersize=7,
                alpha=0.85,
                fillstyle="full" if i < len(COLORS) else "none",
            )
        logarithmic(axis.xaxis)
        axis.set_ylim(-0.03, 1.03)
        axis.set_title(wrapped(model, 40))
        axis.set_xlabel("seconds per image")
        axis.grid()
    for i, attack in enumerate(attacks):
        axes[0].plot(
            [],
            [],
            "s",
            color=COLORS[i % len(COLORS)],
            label=attack,
            linestyle="none",
            fillstyle="full" if i < len(COLORS) else "none",
        )
    for k, library in enumerate(libraries):
        axes[0].plot([], [], MARKS[k % len(MARKS)], color=INK, label=library, linestyle="none", fillstyle="none")
    legend_below(figure, axes[: len(models)])
    return figure


def _draw_published(frame: pd.DataFrame) -> Drawing:
    metrics = list(dict.fromkeys(frame["metric"]))
    attacks = list(dict.fromkeys(frame["attack"]))
    figure, axes = grid(len(metrics), "measured", width=3.1, height=3.1)
    for axis, metric in zip(axes, metrics, strict=False):
        mine = frame[frame["metric"] == metric]
        axis.plot([0, 1], [0, 1], color=PLAIN, linewidth=1)
        for i, attack in enumerate(attacks):
            part = mine[mine["attack"] == attack]
            if part.empty:
                continue
            ends: Any = [part["measured"] - part["measured_low"], part["measured_high"] - part["measured"]]
            axis.errorbar(
                part["published"],
                part["measured"],
                np.maximum(np.nan_to_num(np.array(ends)), 0),
                fmt=MARKS[i % len(MARKS)],
                color=COLORS[i % len(COLORS)],
                elinewidth=0.7,
                capsize=1.5,
                markersize=5,
                alpha=0.85,
                label="clean" if attack == publication.CLEAN else attack,
            )
        axis.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), xlabel="published")
        axis.set_box_aspect(1)
        axis.set_title(metric)
        axis.grid()
    legend_below(figure, axes[: len(metrics)])
    return figure
