"""From planned cells and what the store holds of them to one frame: a row a cell."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparring.adapters.attacks.library import load_library
from sparring.adapters.errors import InputError
from sparring.adapters.wrap import PROBABILITIES
from sparring.suites.plan.cell import Cell
from sparring.suites.plan.plan import Planned
from sparring.suites.results import store
from sparring.suites.results.metrics import AIMED, RATES, scores

if TYPE_CHECKING:
    import pandas as pd

INTERVAL = ("", "_low", "_high")
MEASURED = tuple(
    f"{prefix}{rate}{end}"
    for prefix, rates in (
        ("", ("clean_accuracy", "robust_accuracy", "attack_success_rate", *AIMED, *RATES[1:])),
        ("clean_", RATES[1:]),
        ("drop_", RATES),
    )
    for rate in rates
    for end in INTERVAL
)
"""The rates of ``metrics.scores``, each with its interval."""
COLUMNS = (
    "cell_id", "status", "reason", "suite", "profile", "dataset", "model", "architecture", "framework", "defense",
    "attacker", "library", "library_version", "route", "attack", "norm", "eps", "params", "targeted", "seed", "n",
    *MEASURED, "l0_mean", "l0_median", "l1_mean", "l1_median", "l2_mean", "l2_median", "linf_mean", "linf_median",
    "forwards", "backwards", "seconds", "seconds_per_image", "prediction_seconds_per_image", "notes", "library_call",
    "device", "reconcile", "variant", "space", "temperature", "target",
)  # fmt: skip
"""``attacker`` says whether the attacker knew of the ``defense`` (aware, unaware; empty where that is no question);
``forwards`` and ``backwards`` are per image; ``seconds`` is the library's own time for all n; ``notes`` say where
the library could not do exactly what was asked; ``library_call`` is the library's class with its arguments (JSON);
``reconcile`` are the ledger's entries without which it ran, joined by ' + '; ``variant`` is the suite's name for the
way in which the attack was run, ``space`` and ``temperature`` what that means (``adapters/wrappers/units.py``);
``target`` is the class that every image was to be taken for, empty without one; the others are those of
``metrics.scores``."""


def row(suite_name: str, planned: Planned, run: Path, why_missing: str = "") -> dict[str, Any]:
    """One row; ``status`` is ``missing`` for a cell without a result, and ``reason`` then says why."""
    cell = planned.cell
    found: dict[str, Any] = {
        "cell_id": cell.id,
        "suite": suite_name,
        "dataset": cell.dataset,
        "model": planned.origin,
        "architecture": cell.model.architecture,
        "framework": cell.model.framework,
        "defense": planned.defense,
        "attacker": cell.attacker,
        "library": cell.library,
        "library_version": cell.versions[load_library(cell.library).package],
        "route": cell.route,
        "attack": cell.attack,
        "norm": cell.norm,
        "eps": planned.asked.eps,
        "params": json.dumps(cell.params, sort_keys=True),
        "targeted": cell.targeted,
        "seed": cell.seed,
        "n": cell.stop - cell.start,
        "reason": "",
        "notes": "",
        "reconcile": " + ".join(cell.reconcile),
        "variant": planned.variant,
        "space": cell.space,
        "temperature": cell.temperature,
        "target": planned.aim,
    }
    if planned.unsupported is not None:
        return {**found, "status": "unsupported", "reason": planned.unsupported}
    result = store.read(run, cell.id)
    if result is None:
        return {**found, "status": "missing", "reason": why_missing}
    found |= {"status": result.status, "reason": result.reason, "seconds": result.seconds}
    found |= {"notes": "; ".join(result.notes), "device": result.facts.get("device")}
    if result.status == "done":
        n = len(result.arrays["y"])
        found |= {**scores(_scored(cell, result.arrays), {**result.facts, "seconds": result.seconds}), "n": n}
        found |= {"forwards": result.forwards / n, "backwards": result.backwards / n}
        found["library_call"] = json.dumps(result.facts.get("call"), sort_keys=True)
    return found


def _scored(cell: Cell, arrays: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """The arrays without the logits of a model that only decides: they rank nothing."""
    if cell.model.lacks.get("logits") in (None, PROBABILITIES):
        return arrays
    return {key: value for key, value in arrays.items() if not key.startswith("logits_")}


def frame(
    suite_name: str, plan: list[Planned], run: Path, profile: str | None = None, left: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """All rows, in the plan's order, with the columns of ``COLUMNS``; ``left``: why cells (by id) have no result."""
    import pandas as pd

    why = left or {}
    rows = [{**row(suite_name, each, run, why.get(each.cell.id, "")), "profile": profile or ""} for each in plan]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    texts = ("reason", "notes", "norm", "library_call", "device", "reconcile", "attacker", "profile", "variant",
             "space", "target")  # fmt: skip
    numbers = (*MEASURED, "eps", "temperature", *COLUMNS[COLUMNS.index("l0_mean") : COLUMNS.index("notes")])
    types = {name: "string" for name in texts} | {name: "float64" for name in numbers} | {"n": "int64", "seed": "int64"}
    return table.astype(types)


def write(table: pd.DataFrame, run: Path) -> None:
    """``results.csv`` and ``results.parquet``, each replaced as a whole."""
    import io

    store.write_whole(run / "results.csv", table.to_csv(index=False, lineterminator="\n"))
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    store.write_whole(run / "results.parquet", buffer.getvalue())


def read_results(run: str | Path) -> pd.DataFrame:
    """The results of a run folder. Raises ``InputError`` when there are none."""
    import pandas as pd

    path = Path(run) / "results.parquet"
    if not path.is_file():
        raise InputError(
            f"{run}: no results here (results.parquet is missing); `sparring run SUITE --out {run}` makes them"
        )
    try:
        return pd.read_parquet(path)
    except Exception as error:
        raise InputError(f"{path}: can't be read: {error}") from None
