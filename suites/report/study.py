"""A run as its tables and figures read it: rows, manifest, and what is stored of each cell."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from sparring.suites.report.rows import CONTROL, SUBJECT, classes, done, labelled
from sparring.suites.report.table import HIGH, LOW
from sparring.suites.results.stored_run import StoredRun

if TYPE_CHECKING:
    import pandas as pd

METRICS = ("accuracy", "precision", "recall", "f1", "auroc", "pr_auc", "top5")
"""As the tables call them; ``column`` says how the results do."""
AIMS = ("attack_success_rate", *(f"{norm}_median" for norm in ("l0", "l2", "linf")))
INTERVAL = "in brackets: 95 % interval, of several seeds the mean of theirs"


class Study(StoredRun):
    """A run as its tables and figures read it."""

    @cached_property
    def rows(self) -> pd.DataFrame:
        """The rows with the columns of ``rows.labelled``, without top-5 scores of data with ten classes or fewer."""
        rows = labelled(self.frame)
        for dataset, count in classes(rows, self.arrays).items():
            if count <= 10:  # five guesses of ten say little
                for name in [str(name) for name in rows.columns if "top5" in str(name)]:
                    rows[name] = rows[name].where(rows["dataset"] != dataset)
        return rows

    @property
    def done(self) -> pd.DataFrame:
        """The rows that have numbers."""
        return done(self.rows)

    @property
    def attacks(self) -> pd.DataFrame:
        """Those of them that are attacks: without the control ``none``, which gives the images back as they are."""
        return self.done[self.done["name"] != CONTROL]


def class_names(study: Study) -> dict[str, list[str]]:
    """The names of each data set's classes, where the manifest has them."""
    data = study.manifest.get("data") or []
    held = [data] if isinstance(data, dict) else data
    return {str(entry.get("name")): list(map(str, entry.get("classes") or [])) for entry in held}


def column(metric: str, clean: bool = False) -> str:
    """How the results call a metric, before the attack or after."""
    if metric == "accuracy":
        return "clean_accuracy" if clean else "robust_accuracy"
    return f"clean_{metric}" if clean else metric


def clean_rows(study: Study) -> pd.DataFrame:
    """A row for each seed and each thing that is attacked: what it is worth before any attack is in all of its rows."""
    return study.done.drop_duplicates([*SUBJECT, "seed"])


def present(rows: pd.DataFrame, clean: bool) -> dict[str, str]:
    """The columns of the metrics, with their intervals, that hold anything: name in the results -> in the table."""
    held = [metric for metric in METRICS if column(metric, clean) in rows and rows[column(metric, clean)].notna().any()]
    names = {column(metric, clean) + end: metric + end for metric in held for end in ("", LOW, HIGH)}
    return {name: short for name, short in names.items() if name in rows}
