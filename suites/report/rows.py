"""The rows of a run as tables and figures read them: what was attacked, and with which attack."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sparring.adapters.attacks.catalogue import catalogue, in_words, shortest
from sparring.suites.results.stored_run import Arrays

if TYPE_CHECKING:
    import pandas as pd

SUBJECT = ("dataset", "model", "defense")
"""The columns that say what is attacked."""
KEYS = (*SUBJECT, "attacker", "variant", "attack", "library", "route", "reconcile")
"""The columns that distinguish two rows of one seed; ``attack`` is the label from ``attack_labels``."""
UNDEFENDED = "none"
CONTROL = "none"
"""The attack that changes nothing: where the images differ all the same, the variant changed them."""
LOSSY = "normalised-first"
"""The space in which images are damaged before the attack begins."""


def labelled(results: pd.DataFrame) -> pd.DataFrame:
    """The rows with every column of ``KEYS`` (texts without gaps), and ``name``, the attack without its parameters.

    Numbers that an older run lacks are NaN.
    """
    data = results.reset_index(drop=True).copy()
    for name in ("attacker", "reconcile", "route", "variant", "target"):
        data[name] = data[name].astype(object).where(data[name].notna(), "") if name in data else ""
    if "defense" not in data:
        data["defense"] = UNDEFENDED
    data["model"] = [
        str(model).removesuffix(f" [{chain}]") for model, chain in zip(data["model"], data["defense"], strict=True)
    ]
    data["name"] = data["attack"]
    data["attack"] = attack_labels(data)
    data["space"] = data["space"].fillna("pixels") if "space" in data else "pixels"
    data["temperature"] = data["temperature"].fillna(1.0) if "temperature" in data else 1.0
    for name in ("seconds", "forwards", "backwards"):
        if name not in data:
            data[name] = float("nan")
    if "seconds_per_image" not in data:
        data["seconds_per_image"] = data["seconds"] / data["n"]
    return data


def attack_labels(data: pd.DataFrame) -> list[str]:
    """For each row, its attack. The norm and the parameters are added where they differ within the run."""
    attacks = catalogue()
    aims = [bool(aim) for aim in data["targeted"]] if "targeted" in data else [False] * len(data)
    norms = [norm if isinstance(norm, str) else "" for norm in data["norm"]]
    goals = [str(goal) for goal in data["target"]] if "target" in data else [""] * len(data)
    rows = list(zip(data["attack"], norms, data["params"], aims, goals, strict=True))
    parameters: dict[
        tuple[str, str], dict[str, dict[str, Any]]
    ] = {}  # attack and norm -> parameters as stored, and in short
    for name, norm, params, *_ in rows:
        values = json.loads(params) if isinstance(params, str) else {}
        canonical = attacks.get((name, norm))
        parameters.setdefault((name, norm), {})[params] = (
            shortest(canonical, canonical.resolve(values)) if canonical else values
        )
    differing = {key: _differing(list(variants.values())) for key, variants in parameters.items()}
    labels = []
    for name, norm, params, aim, goal in rows:
        mine = parameters[name, norm][params]
        words = [name]
        words += [norm] if norm and sum(other == name for other, _ in parameters) > 1 else []
        words += [f"→ {goal}"] if goal else ["targeted"] if aim and not all(aims) else []
        words += [f"{key}={in_words(mine[key])}" for key in differing[name, norm] if key in mine]
        labels.append(" ".join(words))
    return labels


def _differing(variants: Sequence[Mapping[str, Any]]) -> list[str]:
    keys = dict.fromkeys(key for variant in variants for key in variant)
    return [key for key in keys if len({json.dumps(variant.get(key)) for variant in variants}) > 1]


def done(data: pd.DataFrame) -> pd.DataFrame:
    """The rows of finished cells."""
    return data[data["status"] == "done"]


def with_errors(data: pd.DataFrame) -> pd.DataFrame:
    """The rows with ``top1_error`` (1 minus accuracy) and ``top5_error`` (1 minus ``top5``), clean and attacked."""
    columns = {}
    for error, rate, before in (
        ("top1_error", "robust_accuracy", "clean_accuracy"),
        ("top5_error", "top5", "clean_top5"),
    ):
        for name, source in ((error, rate), (f"clean_{error}", before)):
            for end, other in (("", ""), ("_low", "_high"), ("_high", "_low")):
                if source + other in data:
                    columns[name + end] = 1 - data[source + other]
    return data.assign(**columns)


def without_idle_control(data: pd.DataFrame) -> pd.DataFrame:
    """The rows, without the control ``none`` where its images are the clean ones: such a row shows nothing new."""
    return data[(data["name"] != CONTROL) | (data["space"] == LOSSY)]


def mean_over_seeds(data: pd.DataFrame, keys: Sequence[str], values: Sequence[str]) -> pd.DataFrame:
    """The means of the values, in one row for each combination of the keys, in order of appearance."""
    means: pd.DataFrame = data.groupby(list(keys), sort=False, dropna=False)[list(values)].mean().reset_index()
    return means


def varied(data: pd.DataFrame, keys: Sequence[str]) -> list[str]:
    """The keys that have more than one value."""
    return [key for key in keys if data[key].nunique(dropna=False) > 1]


def classes(data: pd.DataFrame, arrays: Callable[[str], Arrays]) -> dict[str, int]:
    """The number of classes of each data set, from its logits; without logits, from the labels and decisions."""
    counts = {}
    for dataset, rows in done(data).groupby("dataset", sort=False):
        stored = arrays(str(rows["cell_id"].iloc[0]))
        if "logits_clean" in stored:
            counts[str(dataset)] = int(stored["logits_clean"].shape[1])
        elif stored:
            counts[str(dataset)] = int(max(stored["y"].max(initial=-1), stored["pred_clean"].max(initial=-1))) + 1
    return counts
