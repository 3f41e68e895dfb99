"""Tables of the attacks: their ranks, their statistics, their times."""

from __future__ import annotations

from collections.abc import Iterator

from sparring.suites.study import METRICS, Study, column
from sparring.suites.study_rows import KEYS, mean_over_seeds
from sparring.suites.study_text import StudyTable


def ranks(study: Study) -> Iterator[StudyTable]:
    """The attacks in order, by each metric, over everything that was attacked."""
    rows = study.done
    values = {column(name): name for name in METRICS if column(name) in rows and rows[column(name)].notna().any()}
    values["seconds_per_image"] = "seconds_per_image"
    means = mean_over_seeds(rows, KEYS, list(values)).rename(columns=values)
    against = [key for key in KEYS if key != "attack"]
    names = list(values.values())
    if means["attack"].nunique() < 3:
        return
    means[names] = means.groupby(against, sort=False)[names].rank()
    frame = means.groupby(["attack", "library"], sort=False)[names].mean().reset_index()
    frame = frame.sort_values("accuracy", kind="stable", ignore_index=True)
    yield StudyTable(
        "ranks", "Ranks of the attacks",
        "1 is the strongest attack of its library (the lowest value), of the time the fastest; means of the ranks over "
        "everything that was attacked; ties share the middle.",
        frame,
    )  # fmt: skip


def statistics(study: Study) -> Iterator[StudyTable]:
    """Mean, median, mode, deviation and extremes of each metric over the attacks."""
    import pandas as pd

    rows = study.done
    names = {column(name): name for name in METRICS if column(name) in rows}
    names["seconds_per_image"] = "seconds_per_image"
    keys = [key for key in KEYS if key != "attack"]
    lines = []
    means = mean_over_seeds(rows, KEYS, list(names)).rename(columns=names)
    for key, group in means.groupby(keys, sort=False):
        for metric in names.values():
            values = group[metric].dropna()
            if len(values) < 3:
                continue
            lines.append({
                **dict(zip(keys, key, strict=True)), "metric": metric, "attacks": len(values),
                "mean": values.mean(), "median": values.median(), "mode": values.round(6).mode().iloc[0],
                "deviation": values.std(ddof=1), "lowest": values.min(), "highest": values.max(),
            })  # fmt: skip
    yield StudyTable(
        "statistics", "Each metric over the attacks",
        "Over the attacks of one library, without the clean images; the deviation is the sample's; of several modes "
        "the lowest.",
        pd.DataFrame(lines),
    )  # fmt: skip


def times(study: Study) -> Iterator[StudyTable]:
    rows = study.done
    names = ["seconds_per_image", "prediction_seconds_per_image", "forwards", "backwards"]
    names = [name for name in names if name in rows and rows[name].notna().any()]
    if rows.empty or not names:
        return
    frame = mean_over_seeds(rows, KEYS, names).rename(columns={"seconds_per_image": "attack_seconds_per_image"})
    if "prediction_seconds_per_image" in frame:
        frame["attack_and_prediction"] = frame["attack_seconds_per_image"] + frame["prediction_seconds_per_image"]
    yield StudyTable(
        "times", "Times and costs, per image",
        "Seconds of the library's own work on an attack and of one prediction by the model as deployed; forwards and "
        "backwards: passes through the model. Times depend on the machine, the batch size and what else ran there.",
        frame,
    )  # fmt: skip
