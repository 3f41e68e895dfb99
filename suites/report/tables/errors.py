"""A table of errors by eps: 1 minus accuracy and 1 minus top-5 accuracy, as papers on ImageNet print them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sparring.suites.report.rows import KEYS, mean_over_seeds, with_errors
from sparring.suites.report.study import Study
from sparring.suites.report.table import StudyTable

if TYPE_CHECKING:
    import pandas as pd

ERRORS = {"top1_error": "top-1", "top5_error": "top-5"}
"""Column -> its name in the table."""


def errors(study: Study) -> Iterator[StudyTable]:
    """A row for each model, attack and error; a column for each eps, the clean images first.

    Only attacks with two values of eps or more are in it.
    """
    import pandas as pd

    rows = sized(study)
    rows["attack"] = without_eps(rows)
    names = [name for name in ERRORS if name in rows and rows[name].notna().any()]
    sizes = [f"{eps:.4g}" for eps in sorted(rows["eps"].unique())]
    lines: list[dict[str, Any]] = []
    for key, group in rows.groupby([key for key in KEYS if key in rows], sort=False):
        means = mean_over_seeds(group, ["eps"], names)
        for name in names:
            if means[name].notna().any():
                by_size = {f"{eps:.4g}": value for eps, value in zip(means["eps"], means[name], strict=True)}
                line = {
                    **dict(zip(KEYS, key, strict=True)),
                    "error": ERRORS[name],
                    "clean": group[f"clean_{name}"].mean(),
                }
                lines.append(line | {size: by_size.get(size) for size in sizes})
    five = ", and that have theirs not among the five most probable (top-5)" if "top5_error" in names else ""
    yield StudyTable(
        "errors",
        "Errors by eps",
        f"Share of the images that are taken for another class than theirs (top-1){five}; the columns are eps, in the "
        "units of the variant. Means over seeds.",
        pd.DataFrame(lines),
        ("clean", *sizes),
    )


def sized(study: Study) -> pd.DataFrame:
    """The rows, with errors, of the attacks that ran with two values of eps or more on one model."""
    rows = with_errors(study.attacks)
    rows = rows[rows["eps"].notna()]
    together = ["dataset", "model", "defense", "attacker", "variant", "name", "norm", "library"]
    several = rows.groupby(together, dropna=False)["eps"].transform("nunique") > 1
    return rows[several].copy()


def without_eps(rows: pd.DataFrame) -> list[str]:
    """For each row, its attack without eps."""
    return [" ".join(word for word in label.split(" ") if not word.startswith("eps=")) for label in rows["attack"]]
