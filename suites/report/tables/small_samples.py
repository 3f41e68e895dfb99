"""Small samples out of a large one: how far accuracies of 50 images, say, can be trusted, and what is left of them."""

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
    """Accuracies over each size of ``suite.draws``, as mean and deviation over its draws of other images each.

    Draw k takes the images from k times the largest size on: a sample's images are in random order, and so each draw
    is one, the same for everything that is attacked, and a smaller size of it a part of a larger.
    """
    import pandas as pd

    asked = study.manifest["suite"].get("draws")
    if not asked:
        return
    sizes, count = sorted(asked["sizes"]), int(asked["count"])
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
            lines.append({
                **dict(zip(KEYS, key, strict=True)), "images": size,
                "clean": clean.mean(), "clean_deviation": clean.std(ddof=1),
                "attacked": attacked.mean(), "attacked_deviation": attacked.std(ddof=1),
                "ratio": _ratio(attacked.mean(), clean.mean()),
            })  # fmt: skip
    rates = ("clean", "clean_deviation", "attacked", "attacked_deviation", "ratio")
    yield StudyTable(
        "draws", "Small samples",
        f"Accuracies over so many images: mean and sample deviation over {count} draws of other images each, every "
        "draw the same for all; a smaller size is a part of the larger. Ratio: attacked to clean.",
        pd.DataFrame(lines), rates,
    )  # fmt: skip


def ratios(study: Study) -> Iterator[StudyTable]:
    """What is left of the clean accuracy, over all images; where the suite asks for draws."""
    rows = study.done
    if rows.empty or not study.manifest["suite"].get("draws"):
        return
    names = {column("accuracy", clean=True): "clean", column("accuracy"): "attacked"}
    frame = mean_over_seeds(rows, KEYS, list(names)).rename(columns=names)
    frame["ratio"] = [_ratio(after, before) for after, before in zip(frame["attacked"], frame["clean"], strict=True)]
    yield StudyTable(
        "ratios", "What is left of the accuracy",
        "Accuracy under attack, over all images, by the clean accuracy of the same network: 1 is nothing lost. A "
        "network that is worse to begin with has less to lose.",
        frame, ("clean", "attacked", "ratio"),
    )  # fmt: skip


def _right(study: Study, cells: pd.Series[Any] | Sequence[str]) -> Rights | None:
    """Whether each image is classified as y before and after the attack, (2, images), as means over the seeds."""
    stored = [study.arrays(str(cell)) for cell in cells]
    if not all(stored):
        return None
    sides = [np.stack([each[f"pred_{side}"] == each["y"] for each in stored]).mean(axis=0) for side in ("clean", "adv")]
    return np.stack(sides)


def _ratio(after: float, before: float) -> float:
    return after / before if before else float("nan")
