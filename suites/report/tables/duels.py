"""Tables that compare image by image: aware and unaware attackers, the worst case, library against library."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from sparring.adapters.attacks.distances import NORMS, TOLERANCE
from sparring.suites.report.rows import KEYS, LOSSY, SUBJECT, UNDEFENDED
from sparring.suites.report.study import Study, column
from sparring.suites.report.table import HIGH, LOW, StudyTable
from sparring.suites.results.metrics import mcnemar, paired_difference, wilson
from sparring.suites.results.stored_run import Arrays


def aware(study: Study) -> Iterator[StudyTable]:
    """What a defense is worth once the attacker knows of it."""
    import pandas as pd

    rows = study.done
    # an unaware attacker attacks the undefended model, which may have another route than the defended one
    keys = [key for key in KEYS if key not in ("attacker", "route")]
    same = ["dataset", "model", "variant", "attack", "library"]
    without = rows[rows["defense"] == UNDEFENDED].groupby(same)[column("accuracy")].mean().to_dict()
    lines = []
    for key, group in rows[rows["attacker"] != ""].groupby(keys, sort=False):
        if group["attacker"].nunique() < 2:
            continue
        group = group.drop_duplicates(["attacker", "seed"])
        sides = {who: part.set_index("seed").sort_index() for who, part in group.groupby("attacker", sort=False)}
        named = dict(zip(keys, key, strict=True))
        seeds = sides["aware"].index.intersection(sides["unaware"].index)
        line: dict[str, Any] = dict(named)
        line["undefended"] = without.get(tuple(named[name] for name in same), float("nan"))
        for who in ("unaware", "aware"):
            for end in ("", LOW, HIGH):
                line[who + end] = sides[who].loc[seeds, column("accuracy") + end].mean()
        pairs = zip(sides["aware"].loc[seeds, "cell_id"], sides["unaware"].loc[seeds, "cell_id"], strict=True)
        taken, low, high = np.mean(
            [paired_difference(_right(study, aware), _right(study, unaware)) for aware, unaware in pairs], axis=0
        )
        line |= {"taken_back": taken, "taken_back_low": low, "taken_back_high": high}
        line["worth"] = min(line["aware"], line["unaware"]) - line["undefended"]
        line["lower"] = "aware" if low > 0 else "unaware" if high < 0 else "neither"
        lines.append(line)
    yield StudyTable(
        "aware",
        "Attackers who know of the defense, and who do not",
        "Accuracy under the same attack by either; taken back: unaware minus aware, with its paired 95 % interval; "
        "worth: the lower of the two minus the undefended model's accuracy; lower: who leaves less, beyond the "
        "interval.",
        pd.DataFrame(lines),
        ("undefended", "unaware", "aware", "taken_back", "worth"),
    )


def worst(study: Study) -> Iterator[StudyTable]:
    """The worst case per image over all attacks: within each budget of the suite, and at any distance."""
    import pandas as pd

    lines = []
    rows = study.attacks
    for key, group in rows[rows["space"] != LOSSY].groupby(list(SUBJECT), sort=False):
        budgets: list[tuple[str, float] | None] = [None]
        sized = group[group["eps"].notna() & group["norm"].isin(NORMS) & (group["space"] == "pixels")]
        budgets += sorted({(str(norm), float(eps)) for norm, eps in zip(sized["norm"], sized["eps"], strict=True)})
        group = group[[bool(study.arrays(str(cell))) for cell in group["cell_id"]]]
        cells = [study.arrays(str(cell)) for cell in group["cell_id"]]
        if not cells:
            continue
        for budget in budgets:
            right = [_right_within(stored, budget) for stored in cells]
            every = np.logical_and.reduce(right)
            strongest = int(np.argmin([each.mean() for each in right]))
            low, high = wilson(int(every.sum()), len(every))
            row = group.iloc[strongest]
            lines.append(
                {
                    **dict(zip(SUBJECT, key, strict=True)),
                    "budget": "any distance" if budget is None else f"{budget[0]} ≤ {budget[1]:.4g}",
                    "cells": len(cells),
                    "clean": float(group["clean_accuracy"].mean()),
                    "worst": float(every.mean()),
                    "worst_low": low,
                    "worst_high": high,
                    "strongest": float(right[strongest].mean()),
                    "strongest_is": " ".join(
                        filter(
                            None,
                            (
                                row["attacker"],
                                row["attack"],
                                f"({', '.join(filter(None, (row['library'], row['variant'])))})",
                            ),
                        )
                    ),
                }
            )
    yield StudyTable(
        "worst",
        "Worst case over the attacks that were run",
        "Share of images that no attack, library, attacker or seed turned (Wilson's 95 % interval), beside the "
        "strongest single one; within a budget those count whose image lies inside it, whatever they were asked for. "
        "Pictures that were damaged before the attack (normalized first) don't count. An upper bound of the robust "
        "accuracy: other attacks may turn more.",
        pd.DataFrame(lines),
        ("clean", "worst", "strongest"),
    )


def libraries(study: Study) -> Iterator[StudyTable]:
    import pandas as pd

    rows = study.attacks
    names = list(dict.fromkeys(rows["library"]))
    keys = [key for key in KEYS if key not in ("library", "route")]
    lines = []
    for key, group in rows.groupby(keys, sort=False):
        if group["library"].nunique() < 2:
            continue
        line = dict(zip(keys, key, strict=True))
        means = group.groupby("library", sort=False)[column("accuracy")].mean()
        cells = group.sort_values("seed", kind="stable").drop_duplicates("library").set_index("library")["cell_id"]
        decisions = [study.arrays(str(cell))["pred_adv"] for cell in cells]
        strong, weak = str(means.idxmin()), str(means.idxmax())
        line |= {name: means.get(name, float("nan")) for name in names}
        line["spread"] = float(means.max() - means.min())
        line["same_labels"] = float(np.logical_and.reduce([each == decisions[0] for each in decisions]).mean())
        line["p_value"] = mcnemar(_right(study, cells[strong]), _right(study, cells[weak]))
        lines.append(line)
    yield StudyTable(
        "libraries",
        "Library against library",
        "Accuracy under the same attack with the same parameters; same labels: share of images that have the same "
        "label after the attack of each; p value: exact McNemar test of the lowest against the highest (both of "
        "the first seed).",
        pd.DataFrame(lines),
        (*names, "spread", "same_labels"),
    )


def _right(study: Study, cell: str) -> np.ndarray:
    """Whether each image of a cell is classified as y after the attack."""
    stored = study.arrays(str(cell))
    return np.asarray(stored["pred_adv"] == stored["y"])


def _right_within(stored: Arrays, budget: tuple[str, float] | None) -> np.ndarray:
    """Whether each image is classified as y after the attack; an image beyond the budget counts as not attacked."""
    right = np.asarray(stored["pred_adv"] == stored["y"])
    if budget is None:
        return right
    norm, eps = budget
    inside = stored[norm] <= eps + TOLERANCE
    return np.where(inside, right, stored["pred_clean"] == stored["y"])
