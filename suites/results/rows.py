"""The rows of a run: one for each planned cell, with what the store holds of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparring.adapters.attacks.library import load_library
from sparring.adapters.errors import InputError
from sparring.adapters.wrap import PROBABILITIES
from sparring.models.storage import write_whole
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
DISTANCES = tuple(f"{norm}_{statistic}" for norm in ("l0", "l1", "l2", "linf") for statistic in ("mean", "median"))
COSTS = ("forwards", "backwards", "seconds", "seconds_per_image", "prediction_seconds_per_image")
COLUMNS = (
    *("cell_id", "status", "reason", "suite", "profile", "dataset", "model", "architecture", "framework", "defense"),
    *("attacker", "library", "library_version", "route", "attack", "norm", "eps", "params", "targeted", "seed", "n"),
    *MEASURED,
    *DISTANCES,
    *COSTS,
    *("notes", "library_call", "device", "reconcile", "variant", "space", "temperature", "target"),
)
"""The columns of the results. ``metrics.scores`` explains the measures; of the others:

- ``attacker``: ``aware`` or ``unaware`` of the defense; empty where no defense stands around the model.
- ``forwards``, ``backwards``: passes through the model per image.
- ``seconds``: the library's own time for all n images.
- ``notes``: where the library deviates from the request.
- ``library_call``: the library's class and its arguments, as JSON.
- ``reconcile``: the entries of the ledger that were switched off, joined by ' + '.
- ``variant``: the suite's name for the way the attack was run; ``space`` and ``temperature`` define it
  (``adapters/wrappers/units.py``).
- ``target``: the class that every image should be taken for; empty without one.
"""

TEXTS = (
    *("reason", "notes", "norm", "library_call", "device", "reconcile"),
    *("attacker", "profile", "variant", "space", "target"),
)
NUMBERS = (*MEASURED, "eps", "temperature", *DISTANCES, *COSTS)


def row(suite_name: str, planned: Planned, run: Path, why_missing: str = "") -> dict[str, Any]:
    """One row. A cell without a result has the status ``missing``, and ``why_missing`` is its reason."""
    cell = planned.cell
    values: dict[str, Any] = {
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
        return {**values, "status": "unsupported", "reason": planned.unsupported}
    result = store.read(run, cell.id)
    if result is None:
        return {**values, "status": "missing", "reason": why_missing}
    values |= {"status": result.status, "reason": result.reason, "seconds": result.seconds}
    values |= {"notes": "; ".join(result.notes), "device": result.facts.get("device")}
    if result.status == "done":
        n = len(result.arrays["y"])
        values |= {**scores(_scored(cell, result.arrays), {**result.facts, "seconds": result.seconds}), "n": n}
        values |= {"forwards": result.forwards / n, "backwards": result.backwards / n}
        values["library_call"] = json.dumps(result.facts.get("call"), sort_keys=True)
    return values


def _scored(cell: Cell, arrays: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """The arrays. Of a model that only decides, the logits are left out, because they rank nothing."""
    if cell.model.lacks.get("logits") in (None, PROBABILITIES):
        return arrays
    return {key: value for key, value in arrays.items() if not key.startswith("logits_")}


def frame(
    suite_name: str, plan: list[Planned], run: Path, profile: str | None = None, left: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """All rows, in the plan's order, with ``COLUMNS``. ``left`` maps a cell's id to why it has no result."""
    import pandas as pd

    why = left or {}
    rows = [{**row(suite_name, each, run, why.get(each.cell.id, "")), "profile": profile or ""} for each in plan]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    types = dict.fromkeys(TEXTS, "string") | dict.fromkeys(NUMBERS, "float64") | {"n": "int64", "seed": "int64"}
    return table.astype(types)


def write(table: pd.DataFrame, run: Path) -> None:
    """Write ``results.csv`` and ``results.parquet``, each as a whole."""
    import io

    write_whole(run / "results.csv", table.to_csv(index=False, lineterminator="\n"))
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    write_whole(run / "results.parquet", buffer.getvalue())


def read_results(run: str | Path) -> pd.DataFrame:
    """The rows of a run folder. Raises ``InputError`` where there are none, or they are damaged."""
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
