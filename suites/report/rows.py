"""The rows of a run as studies read them: who was attacked, by what and by whom, in few words."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sparring.adapters.attacks.catalogue import catalogue, in_words, shortest
from sparring.suites.results.stored_run import Arrays

if TYPE_CHECKING:
    import pandas as pd

SUBJECT = ("dataset", "model", "defense")
"""What is attacked."""
KEYS = (*SUBJECT, "attacker", "variant", "attack", "library", "route", "reconcile")
"""What tells two rows apart, but for the seed; ``attack`` is the label of ``attack_labels``."""
UNDEFENDED = "none"
CONTROL = "none"
"""The attack that leaves the images as they are; what changes them is then the variant alone."""
LOSSY = "normalised-first"
"""The space whose images are damaged before the attack begins."""


def labelled(results: pd.DataFrame) -> pd.DataFrame:
    """The results of a run with the columns of ``KEYS`` (texts, none missing), ``name`` (the attack's own),
    ``target`` and ``eps``. Numbers that an older run lacks are NaN.
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
    """Each row's attack with its norm, where the run has it in several, and the parameters that differ in the run."""
    known = catalogue()
    aims = [bool(aim) for aim in data["targeted"]] if "targeted" in data else [False] * len(data)
    norms = [norm if isinstance(norm, str) else "" for norm in data["norm"]]
    goals = [str(goal) for goal in data["target"]] if "target" in data else [""] * len(data)
    rows = list(zip(data["attack"], norms, data["params"], aims, goals, strict=True))
    told: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}  # attack and norm -> parameters as stored, and in short
    for name, norm, params, *_ in rows:
        given = json.loads(params) if isinstance(params, str) else {}
        canonical = known.get((name, norm))
        told.setdefault((name, norm), {})[params] = (
            shortest(canonical, canonical.resolve(given)) if canonical else given
        )
    differing = {key: _differing(list(variants.values())) for key, variants in told.items()}
    labels = []
    for name, norm, params, aim, goal in rows:
        mine = told[name, norm][params]
        words = [name]
        words += [norm] if norm and sum(other == name for other, _ in told) > 1 else []
        words += [f"→ {goal}"] if goal else ["targeted"] if aim and not all(aims) else []
        words += [f"{key}={in_words(mine[key])}" for key in differing[name, norm] if key in mine]
        labels.append(" ".join(words))
    return labels


def _differing(variants: Sequence[Mapping[str, Any]]) -> list[str]:
    keys = dict.fromkeys(key for variant in variants for key in variant)
    return [key for key in keys if len({json.dumps(variant.get(key)) for variant in variants}) > 1]


def done(data: pd.DataFrame) -> pd.DataFrame:
    """The rows that have numbers."""
    return data[data["status"] == "done"]


def with_errors(data: pd.DataFrame) -> pd.DataFrame:
    """The rows with ``top1_error`` and ``top5_error``, clean and attacked: what accuracy and ``top5`` lack to 1."""
    found = {}
    for error, rate, before in (
        ("top1_error", "robust_accuracy", "clean_accuracy"), ("top5_error", "top5", "clean_top5"),
    ):  # fmt: skip
        for name, source in ((error, rate), (f"clean_{error}", before)):
            for end, other in (("", ""), ("_low", "_high"), ("_high", "_low")):
                if source + other in data:
                    found[name + end] = 1 - data[source + other]
    return data.assign(**found)


def told_apart(data: pd.DataFrame) -> pd.DataFrame:
    """The rows without those of the control that say nothing: whose images are the clean ones."""
    return data[(data["name"] != CONTROL) | (data["space"] == LOSSY)]


def mean_over_seeds(data: pd.DataFrame, keys: Sequence[str], values: Sequence[str]) -> pd.DataFrame:
    """One row for each combination of the keys, in order of appearance: the means of the values."""
    found: pd.DataFrame = data.groupby(list(keys), sort=False, dropna=False)[list(values)].mean().reset_index()
    return found


def varied(data: pd.DataFrame, keys: Sequence[str]) -> list[str]:
    """The keys that have several values."""
    return [key for key in keys if data[key].nunique(dropna=False) > 1]


def classes(data: pd.DataFrame, arrays: Callable[[str], Arrays]) -> dict[str, int]:
    """The number of classes of each data set: of the logits, or, where only decisions are stored, those seen."""
    found = {}
    for dataset, rows in done(data).groupby("dataset", sort=False):
        stored = arrays(str(rows["cell_id"].iloc[0]))
        if "logits_clean" in stored:
            found[str(dataset)] = int(stored["logits_clean"].shape[1])
        elif stored:
            found[str(dataset)] = int(max(stored["y"].max(initial=-1), stored["pred_clean"].max(initial=-1))) + 1
    return found
