"""Small samples out of a large one: how much an accuracy over 50 images, say, varies from sample to sample."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sparring.suites.report.rows import KEYS, mean_over_seeds
from sparring.suites.report.study import Study, column
from sparring.suites.report.table import StudyTable

if TYPE_CHECKING:
    import pandas as pd

Rights = npt.NDArray[np.float64]


def draws(study: Study) -> Iterator[StudyTable]:
    """Accuracies over each size in ``suite.draws``: mean and deviation over its draws, which share no image.

    Draw k begins at image k times the largest size. The images are in random order, so that each draw is a random
    sample. A draw is the same for everything that is attacked, and a smaller size is the beginning of a larger one.
    """
    import pandas as pd

    request = study.manifest["suite"].get("draws")
    if not request:
        return
    sizes, count = sorted(request["sizes"]), int(request["count"])
    lines = []
    for key, group in study.done.groupby(list(KEYS), sort=False):
        right = _right(study, group["cell_id"])
        if right is None:
            continue
        for size in sizes:
            starts = [k * sizes[-1] for k in range(count)]
            if starts[-1] + size > right.shape[1]:
                continue
            clean, attacked = (np.array([side[start : start + size].mean() for start in starts]) for side in right)
            lines.append(
                {
                    **dict(zip(KEYS, key, strict=True)),
                    "images": size,
                    "clean": clean.mean(),
                    "clean_deviation": clean.std(ddof=1),
                    "attacked": attacked.mean(),
                    "attacked_deviation": attacked.std(ddof=1),
                    "ratio": _ratio(attacked.mean(), clean.mean()),
                }
            )
    rates = ("clean", "clean_deviation", "attacked", "attacked_deviation", "ratio")
    yield StudyTable(
        "draws",
        "Small samples",
        f"Accuracies over so many images: mean and sample deviation over {count} draws of other images each, every "
        "draw the same for all; a smaller size is a part of the larger. Ratio: attacked to clean.",
        pd.DataFrame(lines),
        rates,
    )


def ratios(study: Study) -> Iterator[StudyTable]:
    """The ratio of accuracy under attack to clean accuracy, over all images; only where the suite asks for draws."""
    rows = study.done
    if rows.empty or not study.manifest["suite"].get("draws"):
        return
    names = {column("accuracy", clean=True): "clean", column("accuracy"): "attacked"}
    frame = mean_over_seeds(rows, KEYS, list(names)).rename(columns=names)
    frame["ratio"] = [_ratio(after, before) for after, before in zip(frame["attacked"], frame["clean"], strict=True)]
    yield StudyTable(
        "ratios",
        "What is left of the accuracy",
        "Accuracy under attack, over all images, by the clean accuracy of the same network: 1 is nothing lost. A "
        "network that is worse to begin with has less to lose.",
        frame,
        ("clean", "attacked", "ratio"),
    )


def _right(study: Study, cells: pd.Series[Any] | Sequence[str]) -> Rights | None:
    """Whether each image is classified as y before and after the attack: means over the seeds, (2, images)."""
    stored = [study.arrays(str(cell)) for cell in cells]
    if not all(stored):
        return None
    sides = [np.stack([each[f"pred_{side}"] == each["y"] for each in stored]).mean(axis=0) for side in ("clean", "adv")]
    return np.stack(sides)


def _ratio(after: float, before: float) -> float:
    return after / before if before else float("nan")
