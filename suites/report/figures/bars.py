"""Bars with whiskers by attack and defense, variant or library: one figure for each data set, model and metric."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from sparring.suites.report.figures.drawing import (
    COLORS,
    INK,
    PLAIN,
    Figure,
    blank,
    legend_below,
    logarithmic,
    safe,
    wrapped,
)
from sparring.suites.report.rows import KEYS, UNDEFENDED, mean_over_seeds, without_idle_control
from sparring.suites.report.study import Study, column
from sparring.suites.report.table import HIGH, LOW

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure as Drawing

METRICS = {
    "accuracy": "accuracy",
    "f1": "macro F1",
    "precision": "macro precision",
    "recall": "macro recall",
    "auroc": "AUROC",
}
SECONDS = "seconds_per_image"
CLEAN = "clean"
UNDEFENDED_WORD = {UNDEFENDED: "undefended"}

Series = tuple[str, str]
"""the defense, variant or library of a bar, and its attacker"""
Bar = tuple[float, float, float]
"""a value and the ends of its interval; NaN where there is no interval"""


def bars(study: Study) -> Iterator[Figure]:
    """Each bar is a defense and each panel a library. Without defenses, bars are variants, or else libraries."""
    rows = without_idle_control(study.done)
    colors = {
        "defense": color_of(list(study.rows["defense"])),
        "variant": library_colors(list(study.rows["variant"])),
        "library": library_colors(list(study.rows["library"])),
    }
    for metric, word in {**METRICS, SECONDS: "seconds per image, attack and prediction"}.items():
        name = column(metric) if metric != SECONDS else SECONDS
        if name not in rows or not rows[name].notna().any():
            continue
        for (dataset, model), group in rows.groupby(["dataset", "model"], sort=False):
            kinds = [key for key in ("defense", "variant") if group[key].nunique() > 1]
            by = kinds[0] if kinds else "library"
            yield Figure(
                safe("bars", metric, str(dataset), str(model)),
                f"{word[0].upper()}{word[1:]} by {by} and attack: {dataset}, {model}",
                _caption(metric, by),
                partial(_draw, _placed(group, by), metric, word, colors[by]),
            )


def color_of(defenses: list[str]) -> dict[str, str]:
    """A color for each defense, gray for none; the same in every figure of a study."""
    others = [name for name in dict.fromkeys(defenses) if name != UNDEFENDED]
    return {UNDEFENDED: PLAIN, **{name: COLORS[i % len(COLORS)] for i, name in enumerate(others)}}


def library_colors(libraries: list[str]) -> dict[str, str]:
    """A color for each library; the same in every figure of a study."""
    return {name: COLORS[i % len(COLORS)] for i, name in enumerate(dict.fromkeys(libraries))}


def _caption(metric: str, by: str) -> str:
    whiskers = "" if metric == SECONDS else " Whiskers: 95 % interval, where there is one; means over seeds."
    hatch = " Hatched: the attacker knows of the defense." if by == "defense" else ""
    return f"{'Time on a logarithmic scale.' if metric == SECONDS else ''}{whiskers}{hatch}".strip()


def _placed(group: pd.DataFrame, by: str) -> pd.DataFrame:
    """The rows with two more columns: the ``panel`` and the ``bar`` of each row."""
    if by == "library":
        return group.assign(panel="", bar=group["library"], attacker="")
    group = _joined(group)
    variants = group["variant"] if by == "defense" and group["variant"].nunique() > 1 else [""] * len(group)
    panels = [", ".join(filter(None, pair)) for pair in zip(group["library"], variants, strict=True)]
    return group.assign(panel=panels, bar=group[by])


def _draw(group: pd.DataFrame, metric: str, word: str, colors: Mapping[str, str]) -> Drawing:
    panels = list(dict.fromkeys(group["panel"]))
    across = [*([CLEAN] if metric != SECONDS else []), *dict.fromkeys(group["attack"])]
    places = list(colors)
    series: list[Any] = sorted(
        dict.fromkeys(zip(group["bar"], group["attacker"], strict=True)), key=lambda one: places.index(one[0])
    )
    width = min(16.0, max(6.5, 1.4 + 0.17 * len(across) * (len(series) + 1.5)))
    figure = blank(width, 0.6 + 2.0 * len(panels))
    axes = figure.subplots(len(panels), 1, squeeze=False, sharex=True, sharey=True)[:, 0]
    for axis, panel in zip(axes, panels, strict=True):
        values = _values(group[group["panel"] == panel], metric)
        step = 0.84 / len(series)
        for i, one in enumerate(series):
            there = [(j, values[one, name]) for j, name in enumerate(across) if (one, name) in values]
            if not there:
                continue
            x = [j - 0.42 + step * (i + 0.5) for j, _ in there]
            label = " ".join(filter(None, (UNDEFENDED_WORD.get(one[0], one[0]), f"({one[1]})" if one[1] else "")))
            axis.bar(
                x,
                [bar[0] for _, bar in there],
                step * 0.9,
                color=colors[one[0]],
                label=label,
                hatch="////" if one[1] == "aware" else None,
                edgecolor="white" if one[1] == "aware" else "none",
                linewidth=0,
            )
            _whiskers(axis, x, [bar for _, bar in there])
        axis.set_title(panel)
        axis.set_ylabel(wrapped(word, 22))
        axis.grid(axis="y")
        if metric == SECONDS:
            logarithmic(axis.yaxis)
        else:
            axis.set_ylim(0, 1.03)
        axis.set_xlim(-0.55, len(across) - 0.45)
    room = max(9, int(width * 12 / len(across)))
    axes[-1].set_xticks(range(len(across)), [wrapped(name, room) for name in across])
    for axis in axes:
        axis.tick_params(axis="x", length=0)
    legend_below(figure, axes)
    return figure


def _joined(group: pd.DataFrame) -> pd.DataFrame:
    """The rows, where a library that shares no attack with another moves into the first panel of the others."""
    attacks = {name: set(part["attack"]) for name, part in group.groupby("library", sort=False)}
    alone = [
        name
        for name, mine in attacks.items()
        if not any(mine & theirs for other, theirs in attacks.items() if other != name)
    ]
    first = next((name for name in attacks if name not in alone), None)
    if first is None or not alone:
        return group
    move = group["library"].isin(alone)
    named = group["attack"] + " (" + group["library"].astype(str) + ")"
    return group.assign(attack=group["attack"].where(~move, named), library=group["library"].where(~move, first))


def _values(group: pd.DataFrame, metric: str) -> Mapping[tuple[Series, str], Bar]:
    name = column(metric) if metric != SECONDS else SECONDS
    columns = [name + end for end in ("", LOW, HIGH) if name + end in group]
    values: dict[tuple[Series, str], Bar] = {}
    rows = group.copy()
    if metric == SECONDS and "prediction_seconds_per_image" in rows:
        rows[name] = rows[name] + rows["prediction_seconds_per_image"].fillna(0)
    for row in mean_over_seeds(rows, [*KEYS, "bar"], columns).to_dict("records"):
        values.setdefault(((row["bar"], row["attacker"]), row["attack"]), _bar(row, name))
    before = column(metric, True)
    if metric != SECONDS and before in rows:
        columns = [before + end for end in ("", LOW, HIGH) if before + end in rows]
        for row in mean_over_seeds(rows, ["bar", "attacker"], columns).to_dict("records"):
            values[(row["bar"], row["attacker"]), CLEAN] = _bar(row, before)
    return values


def _bar(row: Mapping[Any, Any], name: str) -> Bar:
    return float(row[name]), float(row.get(name + LOW, np.nan)), float(row.get(name + HIGH, np.nan))


def _whiskers(axis: Any, x: list[float], bars: list[Bar]) -> None:
    whiskered = [(place, bar) for place, bar in zip(x, bars, strict=True) if not np.isnan(bar[1] + bar[2])]
    if whiskered:
        value, low, high = np.array([bar for _, bar in whiskered]).T
        ends = np.maximum([value - low, high - value], 0)
        axis.errorbar(
            [place for place, _ in whiskered], value, ends, fmt="none", ecolor=INK, elinewidth=0.7, capsize=1.5
        )
