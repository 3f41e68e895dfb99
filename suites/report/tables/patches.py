"""Tables of adversarial patches: the share of images that a patch leads to its target, by size and by network."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from sparring.adapters.attacks.catalogue import in_words
from sparring.suites.report.rows import KEYS, mean_over_seeds
from sparring.suites.report.study import INTERVAL, Study
from sparring.suites.report.table import HIGH, LOW, StudyTable
from sparring.suites.results.metrics import paired_difference

if TYPE_CHECKING:
    import pandas as pd

PATCH = "patch"
RATES = ("target_top1", "target_top5")
SETTING = tuple(key for key in KEYS if key != "attack")
"""What was attacked, and with what; a patch has ``target``, ``size`` and ``how`` (other parameters that differ)."""


def patches(study: Study) -> Iterator[StudyTable]:
    """For each target and size, the share of the images of other classes that are taken for the target."""
    rows = targeted(study)
    if rows.empty:
        return
    names = [name + end for name in RATES for end in ("", LOW, HIGH)]
    names = [name for name in names if name in rows and rows[name].notna().any()]
    keys = [*SETTING, "target", *(["how"] if rows["how"].any() else []), "size"]
    frame = _in_order(mean_over_seeds(rows, keys, ["others", "already", *names]), keys)
    frame["others"] = frame["others"].round().astype(int)
    frame = frame.rename(columns={"others": "images", **{n: n.removeprefix("target_") for n in names}})
    yield StudyTable(
        "patches",
        "Adversarial patches",
        "Images of other classes than the target, none of which the patch was made from; already: share of them that "
        "are taken for the target without a patch; top1, top5: share that are with it, and that have it among the five "
        f"most probable; {INTERVAL}.",
        frame,
        ("already", "top1", "top5"),
    )
    yield _order(study, rows)


def transfer(study: Study) -> Iterator[StudyTable]:
    """The patches of each network on the other networks, from the run's transfer matrix, where it has one."""
    import pandas as pd

    path = study.folder / "transfer.parquet"
    if not path.is_file():
        return
    rows = pd.read_parquet(path)
    if "aim" not in rows:
        return
    rows = rows[(rows["attack"] == PATCH) & (rows["status"] == "done") & (rows["aim"].fillna("") != "")]
    if rows.empty:
        return
    rows = _described(rows.assign(variant=rows["variant"].fillna("")))
    keys = ["dataset", "variant", "library", "route", "aim", *(["how"] if rows["how"].any() else []), "size"]
    lines: dict[tuple[Any, ...], dict[str, Any]] = {}
    targets = [str(name) for name in dict.fromkeys(rows["target"])]
    for key, group in rows.groupby([*keys, "surrogate", "target"], sort=False):
        line = lines.setdefault(key[:-1], dict(zip([*keys, "made on"], key[:-1], strict=True)))
        for end in ("", LOW, HIGH):
            line[str(key[-1]) + end] = group[f"success_all{end}"].mean()
    for line in lines.values():
        shares = [line[name] for name in targets if name != line["made on"] and name in line]
        line["others"] = float(np.mean(shares)) if shares else float("nan")
    frame = _in_order(pd.DataFrame(list(lines.values())), ["made on", *keys]).rename(columns={"aim": "target"})
    yield StudyTable(
        "patches-transfer",
        "Patches on other networks",
        "Share of all images that the network of the column takes for the target, with a patch that was made on the "
        f"network of the line; others: the mean over the networks that it was not made on; {INTERVAL}.",
        frame,
        (*targets, "others"),
    )


def _in_order(frame: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """The frame sorted by the keys: sizes by size, other values in the order of their first appearance."""
    places = {key: {value: place for place, value in enumerate(frame[key].unique())} for key in keys if key != "size"}
    ranked = frame.assign(**{f"_{key}": frame[key].map(order) for key, order in places.items()}, _size=frame["size"])
    order = ranked.sort_values([f"_{key}" for key in keys], kind="stable").index
    return frame.loc[order].reset_index(drop=True)


def targeted(study: Study) -> pd.DataFrame:
    """The finished rows of patches with a target, with ``size``, ``how``, ``others`` and ``already``.

    ``others``: the number of images of other classes. ``already``: the share of them that the network takes for the
    target without a patch.
    """
    rows = study.done
    rows = rows[(rows["name"] == PATCH) & (rows["target"] != "")]
    if rows.empty:
        return rows
    before = [_before(study, str(cell)) for cell in rows["cell_id"]]
    return _described(rows).assign(
        others=[len(hits) for hits in before],
        already=[float(hits.mean()) if len(hits) else float("nan") for hits in before],
    )


def _before(study: Study, cell: str) -> np.ndarray:
    arrays = study.arrays(cell)
    hits: np.ndarray = (arrays["pred_clean"] == arrays["target"])[arrays["y"] != arrays["target"]]
    return hits


def _described(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with ``size``, and with ``how``, the other parameters that differ among them."""
    params = [json.loads(text) for text in rows["params"]]
    names = dict.fromkeys(name for each in params for name in each if name != "size")
    differing = [name for name in names if len({json.dumps(each.get(name)) for each in params}) > 1]
    how = [" ".join(f"{name}={in_words(each[name])}" for name in differing if name in each) for each in params]
    return rows.assign(size=[int(each["size"]) for each in params], how=how)


def _order(study: Study, rows: pd.DataFrame) -> StudyTable:
    """Whether a larger patch is stronger than the next smaller one, image by image."""
    import pandas as pd

    lines = []
    keys = [*SETTING, "target", "how"]
    for key, group in rows.groupby(keys, sort=False):
        sizes = sorted(group["size"].unique())
        for small, large in pairwise(sizes):
            sides = [
                group[group["size"] == size].drop_duplicates("seed").set_index("seed")["cell_id"]
                for size in (small, large)
            ]
            seeds = sides[0].index.intersection(sides[1].index)
            steps = [paired_difference(*(_hits(study, str(side[seed])) for side in sides)) for seed in seeds]
            if not steps:
                continue
            more, low, high = np.mean(steps, axis=0)
            answer = "yes" if low > 0 else "no" if high < 0 else "not told apart"
            lines.append(
                {
                    **dict(zip(keys, key, strict=True)),
                    "from": small,
                    "to": large,
                    "more": more,
                    "more_low": low,
                    "more_high": high,
                    "stronger": answer,
                }
            )
    frame = pd.DataFrame(lines)
    if len(frame) and not frame["how"].any():
        frame = frame.drop(columns="how")
    return StudyTable(
        "patches-order",
        "Larger patches are stronger?",
        "The share of images led to the target with the larger patch minus that with the smaller, with its paired 95 % "
        "interval.",
        frame,
        ("more",),
    )


def _hits(study: Study, cell: str) -> np.ndarray:
    arrays = study.arrays(cell)
    hits: np.ndarray = (arrays["pred_adv"] == arrays["target"])[arrays["y"] != arrays["target"]]
    return hits
