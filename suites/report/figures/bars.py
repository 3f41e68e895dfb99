"""Bars by defense, variant or library, and attack, with whiskers: one figure for each data set, model and metric."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from sparring.suites.report.figures.drawing import (
    COLOURS,
    INK,
    PLAIN,
    Figure,
    blank,
    legend_below,
    logarithmic,
    safe,
    wrapped,
)
from sparring.suites.report.rows import KEYS, UNDEFENDED, mean_over_seeds, told_apart
from sparring.suites.report.study import Study, column
from sparring.suites.report.table import HIGH, LOW

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure as Drawing

METRICS = {
    "accuracy": "accuracy", "f1": "macro F1", "precision": "macro precision", "recall": "macro recall",
    "auroc": "AUROC",
}  # fmt: skip
SECONDS = "seconds_per_image"
CLEAN = "clean"
UNDEFENDED_WORD = {UNDEFENDED: "undefended"}

Whose = tuple[str, str]
"""what the bar is of (a defense, a variant or a library), and the attacker"""
Bar = tuple[float, float, float]
"""value and the ends of its interval (NaN: none)"""


def bars(study: Study) -> Iterator[Figure]:
    """Bars are defenses and panels libraries; without defenses bars are variants, and without these libraries."""
    rows = told_apart(study.done)
    colours = {
        "defense": colour_of(list(study.rows["defense"])),
        "variant": library_colours(list(study.rows["variant"])),
        "library": library_colours(list(study.rows["library"])),
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
                partial(_draw, _placed(group, by), metric, word, colours[by]),
            )  # fmt: skip


def colour_of(defenses: list[str]) -> dict[str, str]:
    """A colour for each defense, grey for none; the same in every figure of a study."""
    others = [name for name in dict.fromkeys(defenses) if name != UNDEFENDED]
    return {UNDEFENDED: PLAIN, **{name: COLOURS[i % len(COLOURS)] for i, name in enumerate(others)}}


def library_colours(libraries: list[str]) -> dict[str, str]:
    """A colour for each library; the same in every figure of a study."""
    return {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(dict.fromkeys(libraries))}


def _caption(metric: str, by: str) -> str:
    whiskers = "" if metric == SECONDS else " Whiskers: 95 % interval, where there is one; means over seeds."
    hatch = " Hatched: the attacker knows of the defense." if by == "defense" else ""
    return f"{'Time on a logarithmic scale.' if metric == SECONDS else ''}{whiskers}{hatch}".strip()


def _placed(group: pd.DataFrame, by: str) -> pd.DataFrame:
    """The rows with the ``panel`` and the ``bar`` that each belongs to."""
    if by == "library":
        return group.assign(panel="", bar=group["library"], attacker="")
    group = _joined(group)
    variants = group["variant"] if by == "defense" and group["variant"].nunique() > 1 else [""] * len(group)
    panels = [", ".join(filter(None, pair)) for pair in zip(group["library"], variants, strict=True)]
    return group.assign(panel=panels, bar=group[by])


def _draw(group: pd.DataFrame, metric: str, word: str, colours: Mapping[str, str]) -> Drawing:
    panels = list(dict.fromkeys(group["panel"]))
    across = [*([CLEAN] if metric != SECONDS else []), *dict.fromkeys(group["attack"])]
    places = list(colours)
    whose: list[Any] = sorted(
        dict.fromkeys(zip(group["bar"], group["attacker"], strict=True)), key=lambda who: places.index(who[0])
    )
    width = min(16.0, max(6.5, 1.4 + 0.17 * len(across) * (len(whose) + 1.5)))
    figure = blank(width, 0.6 + 2.0 * len(panels))
    axes = figure.subplots(len(panels), 1, squeeze=False, sharex=True, sharey=True)[:, 0]
    for axis, panel in zip(axes, panels, strict=True):
        values = _values(group[group["panel"] == panel], metric)
        step = 0.84 / len(whose)
        for i, who in enumerate(whose):
            there = [(j, values[who, name]) for j, name in enumerate(across) if (who, name) in values]
            if not there:
                continue
            x = [j - 0.42 + step * (i + 0.5) for j, _ in there]
            label = " ".join(filter(None, (UNDEFENDED_WORD.get(who[0], who[0]), f"({who[1]})" if who[1] else "")))
            axis.bar(
                x, [bar[0] for _, bar in there], step * 0.9, color=colours[who[0]], label=label,
                hatch="////" if who[1] == "aware" else None, edgecolor="white" if who[1] == "aware" else "none",
                linewidth=0,
            )  # fmt: skip
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
    """The rows with those of a library that has only attacks of its own in the panel of the first of the others."""
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


def _values(group: pd.DataFrame, metric: str) -> Mapping[tuple[Whose, str], Bar]:
    name = column(metric) if metric != SECONDS else SECONDS
    columns = [name + end for end in ("", LOW, HIGH) if name + end in group]
    found: dict[tuple[Whose, str], Bar] = {}
    rows = group.copy()
    if metric == SECONDS and "prediction_seconds_per_image" in rows:
        rows[name] = rows[name] + rows["prediction_seconds_per_image"].fillna(0)
    for row in mean_over_seeds(rows, [*KEYS, "bar"], columns).to_dict("records"):
        found.setdefault(((row["bar"], row["attacker"]), row["attack"]), _bar(row, name))
    before = column(metric, True)
    if metric != SECONDS and before in rows:
        columns = [before + end for end in ("", LOW, HIGH) if before + end in rows]
        for row in mean_over_seeds(rows, ["bar", "attacker"], columns).to_dict("records"):
            found[(row["bar"], row["attacker"]), CLEAN] = _bar(row, before)
    return found


def _bar(row: Mapping[Any, Any], name: str) -> Bar:
    return float(row[name]), float(row.get(name + LOW, np.nan)), float(row.get(name + HIGH, np.nan))


def _whiskers(axis: Any, x: list[float], found: list[Bar]) -> None:
    known = [(place, bar) for place, bar in zip(x, found, strict=True) if not np.isnan(bar[1] + bar[2])]
    if known:
        value, low, high = np.array([bar for _, bar in known]).T
        ends = np.maximum([value - low, high - value], 0)
        axis.errorbar([place for place, _ in known], value, ends, fmt="none", ecolor=INK, elinewidth=0.7, capsize=1.5)
