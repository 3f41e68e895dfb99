"""Tables of the attacks: ranks, statistics and times."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sparring.suites.report.rows import KEYS, mean_over_seeds
from sparring.suites.report.study import METRICS, Study, column
from sparring.suites.report.table import StudyTable

if TYPE_CHECKING:
    import pandas as pd


def ranks(study: Study) -> Iterator[StudyTable]:
    """The mean rank of each attack by each metric, over everything that was attacked."""
    rows = study.attacks
    values = {column(name): name for name in METRICS if column(name) in rows and rows[column(name)].notna().any()}
    values["seconds_per_image"] = "seconds_per_image"
    means = mean_over_seeds(rows, KEYS, list(values)).rename(columns=values)
    against = [key for key in KEYS if key != "attack"]
    names = list(values.values())
    if means["attack"].nunique() < 3:
        return
    means[names] = means.groupby(against, sort=False)[names].rank()
    frame = means.groupby(["variant", "attack", "library"], sort=False)[names].mean().reset_index()
    order = {name: place for place, name in enumerate(dict.fromkeys(frame["variant"]))}
    frame = frame.sort_values(
        ["variant", "accuracy"],
        kind="stable",
        ignore_index=True,
        key=lambda values: values.map(order) if values.name == "variant" else values,
    )
    yield StudyTable(
        "ranks",
        "Ranks of the attacks",
        "1 is the strongest attack of its library (the lowest value), of the time the fastest; means of the ranks over "
        "everything that was attacked; ties share the middle.",
        frame,
    )


def statistics(study: Study) -> Iterator[StudyTable]:
    """Each metric's mean, median, mode, deviation and extremes over the attacks, without and with the clean images."""
    of = "the deviation is the sample's; of several modes the lowest."
    yield StudyTable(
        "statistics",
        "Each metric over the attacks",
        f"Over the attacks of one library, without the clean images; {of}",
        _described(study, clean=False),
    )
    yield StudyTable(
        "statistics-with-clean",
        "Each metric over the attacks and the clean images",
        f"Over the attacks of one library and one row more, that of the clean images, whose attack takes no time; {of}",
        _described(study, clean=True),
    )


def _described(study: Study, *, clean: bool) -> pd.DataFrame:
    import pandas as pd

    rows = study.attacks
    names = {column(name): name for name in METRICS if column(name) in rows}
    names["seconds_per_image"] = "seconds_per_image"
    before = {column(metric, True): metric for metric in METRICS if column(metric, True) in rows}
    keys = [key for key in KEYS if key != "attack"]
    lines = []
    for key, group in rows.groupby(keys, sort=False):
        means = mean_over_seeds(group, ["attack"], list(names)).rename(columns=names)
        untouched = {**group[list(before)].mean().rename(before), "seconds_per_image": 0.0}
        for metric in names.values():
            values = means[metric].dropna()
            if len(values) < 3:
                continue
            if clean:
                values = pd.concat([values, pd.Series([untouched.get(metric, float("nan"))])]).dropna()
            lines.append(
                {
                    **dict(zip(keys, key, strict=True)),
                    "metric": metric,
                    "rows" if clean else "attacks": len(values),
                    "mean": values.mean(),
                    "median": values.median(),
                    "mode": values.round(6).mode().iloc[0],
                    "deviation": values.std(ddof=1),
                    "lowest": values.min(),
                    "highest": values.max(),
                }
            )
    return pd.DataFrame(lines)


def times(study: Study) -> Iterator[StudyTable]:
    rows = study.attacks
    names = ["seconds_per_image", "prediction_seconds_per_image", "forwards", "backwards"]
    names = [name for name in names if name in rows and rows[name].notna().any()]
    if rows.empty or not names:
        return
    frame = mean_over_seeds(rows, KEYS, names).rename(columns={"seconds_per_image": "attack_seconds_per_image"})
    if "prediction_seconds_per_image" in frame:
        frame["attack_and_prediction"] = frame["attack_seconds_per_image"] + frame["prediction_seconds_per_image"]
    yield StudyTable(
        "times",
        "Times and costs, per image",
        "Seconds of the library's own work on an attack and of one prediction by the model as deployed; forwards and "
        "backwards: passes through the model. Times depend on the machine, the batch size and what else ran there.",
        frame,
    )
