"""An opened run as its tables and figures read it: its rows with labels, and what they have in common."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from sparring.suites.report.rows import CONTROL, SUBJECT, classes, done, labelled
from sparring.suites.report.table import HIGH, LOW
from sparring.suites.results.stored_run import StoredRun

if TYPE_CHECKING:
    import pandas as pd

METRICS = ("accuracy", "precision", "recall", "f1", "auroc", "pr_auc", "top5")
"""The names that tables use; ``column`` gives the name in the results."""
AIMS = ("attack_success_rate", *(f"{norm}_median" for norm in ("l0", "l2", "linf")))
INTERVAL = "in brackets: 95 % interval, of several seeds the mean of theirs"


class Study(StoredRun):
    """A run as its tables and figures read it."""

    @cached_property
    def rows(self) -> pd.DataFrame:
        """The rows with the columns of ``rows.labelled``, without top-5 scores of data with ten classes or fewer."""
        rows = labelled(self.frame)
        for dataset, count in classes(rows, self.arrays).items():
            if count <= 10:  # among ten classes, five guesses say little
                for name in [str(name) for name in rows.columns if "top5" in str(name)]:
                    rows[name] = rows[name].where(rows["dataset"] != dataset)
        return rows

    @property
    def done(self) -> pd.DataFrame:
        """The rows of finished cells."""
        return done(self.rows)

    @property
    def attacks(self) -> pd.DataFrame:
        """The rows of finished attacks, without the control ``none``, which changes nothing."""
        return self.done[self.done["name"] != CONTROL]


def class_names(study: Study) -> dict[str, list[str]]:
    """The names of each data set's classes, where the manifest has them."""
    data = study.manifest.get("data") or []
    entries = [data] if isinstance(data, dict) else data
    return {str(entry.get("name")): list(map(str, entry.get("classes") or [])) for entry in entries}


def column(metric: str, clean: bool = False) -> str:
    """The name of a metric in the results: of the clean images, or under attack."""
    if metric == "accuracy":
        return "clean_accuracy" if clean else "robust_accuracy"
    return f"clean_{metric}" if clean else metric


def clean_rows(study: Study) -> pd.DataFrame:
    """One row for each model, defense, data set and seed; all its rows hold the same values of the clean images."""
    return study.done.drop_duplicates([*SUBJECT, "seed"])


def present(rows: pd.DataFrame, clean: bool) -> dict[str, str]:
    """The metrics that have values, with their intervals: name in the results -> name in the table."""
    metrics = [
        metric for metric in METRICS if column(metric, clean) in rows and rows[column(metric, clean)].notna().any()
    ]
    names = {column(metric, clean) + end: metric + end for metric in metrics for end in ("", LOW, HIGH)}
    return {name: short for name, short in names.items() if name in rows}
