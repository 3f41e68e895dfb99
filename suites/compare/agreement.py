"""The agreement of every pair of libraries, routes and frameworks on the same model, images and seeds, as a verdict."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sparring.adapters.attacks.catalogue import catalogue
from sparring.adapters.attacks.library import Unsupported, load_library
from sparring.adapters.attacks.request import Request
from sparring.adapters.errors import InputError
from sparring.adapters.libraries.ledger import Entry, entries, habits, ledger_name
from sparring.suites.compare import flat_pixels
from sparring.suites.compare.pairs import IMAGES, Arrays, Compared, compare
from sparring.suites.compare.steadiness import unsteady
from sparring.suites.compare.verdicts import FEW, differing, judge
from sparring.suites.plan.file import Suite
from sparring.suites.results import manifest, store
from sparring.suites.results.rows import read_results

if TYPE_CHECKING:
    import pandas as pd

REFEREE = "referee"
COLUMNS = (
    "attack",
    "params",
    "model",
    "library_a",
    "library_b",
    "version_a",
    "version_b",
    "route_a",
    "route_b",
    "framework_a",
    "framework_b",
    "n",
    "max_abs_diff",
    "mean_abs_diff",
    "pixels_differing",
    "label_agreement",
    "success_a",
    "success_b",
    "p_value",
    "verdict",
    "ledger_id",
    "norm",
    "targeted",
    "model_a",
    "model_b",
    "pixels_flat",
    "max_abs_diff_flat",
    "images_differing",
    "images_unsteady",
    "success_difference",
    "success_low",
    "success_high",
    "distance_a",
    "distance_b",
    "distance_difference",
    "distance_ratio",
    "forwards_a",
    "forwards_b",
    "backwards_a",
    "backwards_b",
    "reason",
    "reconciled",
    "dataset",
    "defense",
    "attacker",
    "outcomes_differing",
)
"""The columns of ``agreement.csv``.

``verdict`` is identical, equal, explained, unexplained or failed (then ``reason`` says why). ``ledger_id`` holds the
entries that explain the pair, joined by ' + '. ``model`` is the model of both, or the one from which they were
exported. ``forwards`` and ``backwards`` are per image. ``reconciled`` is an explained pair's verdict with its causes
taken away, where that was run. ``images_unsteady`` is the share of images that were set apart because their end hangs
on a rounding (``steadiness``); n counts the others. ``pairs.Compared`` describes the other columns."""


@dataclass(frozen=True)
class Agreement:
    """All pairs of a run (``COLUMNS``), and the stale entries of the ledger: they should show here and don't."""

    folder: Path
    reconciled: bool
    pairs: pd.DataFrame
    stale: tuple[str, ...]

    @property
    def disagreements(self) -> int:
        """The number of pairs that are unexplained or failed."""
        return int(self.pairs["verdict"].isin(["unexplained", "failed"]).sum())

    @property
    def explained(self) -> pd.DataFrame:
        """The pairs whose difference the ledger explains."""
        return self.pairs[self.pairs["verdict"] == "explained"]

    @property
    def unexplained_attacks(self) -> set[tuple[str, str | None, str]]:
        """The attacks with an unexplained pair, as (name, norm, parameters)."""
        pairs = self.pairs[self.pairs["verdict"] == "unexplained"]
        return set(zip(pairs["attack"], pairs["norm"], pairs["params"], strict=True))

    def explained_attacks(self, *, doubtful: bool = False) -> set[tuple[str, str | None, str]]:
        """The attacks to check, as (name, norm, parameters): their pairs are explained, or failed for a known cause.

        ``doubtful``: only those of explained pairs with several entries, some of which may not show.
        """
        pairs = self.pairs[self.pairs["ledger_id"] != ""]
        if doubtful:
            pairs = self.explained
            ids_of_pairs = [text.split(" + ") for text in pairs["ledger_id"]]
            may_hide = [len(ids) > 1 and not all(entries()[name].always for name in ids) for ids in ids_of_pairs]
            pairs = pairs[np.array(may_hide, bool)]
        return set(zip(pairs["attack"], pairs["norm"], pairs["params"], strict=True))


def with_referee(suite: Suite, *, reconcile: bool = False) -> Suite:
    """The suite with the referee beside its libraries, and with both routes unless it names its own."""

    def joined(names: tuple[str, ...]) -> tuple[str, ...]:
        return names if REFEREE in names else (*names, REFEREE)

    referee = load_library(REFEREE)

    def has(request: Request) -> bool:
        return request.canonical is not None and not isinstance(referee.find(request.canonical), Unsupported)

    attacks = tuple(
        spec.model_copy(update={"libraries": joined(spec.libraries)})
        if spec.libraries is not None and has(spec.requests()[0])
        else spec
        for spec in suite.attacks
    )
    more = {"reconcile": True} if reconcile else {}
    return suite.model_copy(
        update={
            "libraries": joined(suite.libraries),
            "attacks": attacks,
            "routes": suite.routes or ("native", "bridged"),
            **more,
        }
    )


def only(suite: Suite, attacks: Collection[tuple[str, str | None, str]]) -> Suite:
    """The suite with only those attacks that make a request in ``attacks`` (name, norm, parameters as JSON)."""

    def listed(request: Request) -> bool:
        return (request.name, request.norm, json.dumps(request.params, sort_keys=True)) in attacks

    specs = tuple(spec for spec in suite.attacks if any(map(listed, spec.requests())))
    return suite.model_copy(update={"attacks": specs})


def verified(plain: Agreement, reconciled: Agreement) -> Agreement:
    """``plain`` with every explained pair checked: a pair that differs without its causes, too, is unexplained.

    A failed pair is explained if it no longer fails without them. ``reconciled`` is the same suite without the
    ledger's differences; its verdicts go into the column ``reconciled``.
    """
    keys = [*_SUBJECT, "attack", "norm", "params", "targeted", "model_a", "model_b"]
    keys += [f"{key}_{side}" for key in ("library", "route") for side in "ab"]
    after = {_key(row, keys): row for _, row in reconciled.pairs.iterrows()}
    pairs = plain.pairs.copy()
    for index, row in pairs[pairs["ledger_id"] != ""].iterrows():
        then = after.get(_key(row, keys))
        verdict = "missing" if then is None else str(then["verdict"])
        pairs.loc[index, "reconciled"] = verdict
        if row["verdict"] == "failed":
            works = verdict in ("identical", "equal", "explained")
            pairs.loc[index, ["verdict", "ledger_id"]] = ["explained", row["ledger_id"]] if works else ["failed", ""]
        elif then is None or verdict in ("unexplained", "failed"):
            left = "it was not run again" if then is None else then["reason"] or f"max |Δ| {then['max_abs_diff']:.2g}"
            why = f"{row['ledger_id']} taken away, it still differs: {left}"
            pairs.loc[index, ["verdict", "ledger_id", "reason"]] = ["unexplained", "", why]
    return replace(plain, pairs=pairs)


def narrowed(plain: Agreement, each: Path) -> Agreement:
    """``plain`` with only those entries of an explained pair that change anything on these images.

    ``each`` is a run of the same suite with one entry taken away at a time. An entry that was not tried stays. Where
    none of a pair's entries changes anything alone, all stay: they may show only together.
    """
    results = read_results(each)
    before = {
        _key(row, [*_ATTACKED, "seed"]): row["cell_id"]
        for _, row in read_results(plain.folder).iterrows()
        if row["status"] == "done"
    }
    shows: dict[tuple[str, ...], bool] = {}
    for _, row in results.iterrows():
        cell = before.get(_key(row, [*_ATTACKED, "seed"]))
        done = row["status"] == "done"  # without this entry; what failed before has no cell
        changed = done and (cell is None or _changed(plain.folder, str(cell), each, str(row["cell_id"])))
        key = (*_key(row, _ATTACKED[:-1]), row["reconcile"])
        shows[key] = shows.get(key, False) or changed
    pairs = plain.pairs.copy()
    for index, row in plain.explained.iterrows():
        on, common = _key(row, _SUBJECT), _key(row, ["attack", "norm", "params", "targeted"])
        parties = [(str(row[f"library_{side}"]), *on, str(row[f"model_{side}"]), *common) for side in "ab"]
        ids = row["ledger_id"].split(" + ")
        shown = [name for name in ids if any(shows.get((*party, name), True) for party in parties if _has(party, name))]
        pairs.loc[index, "ledger_id"] = " + ".join(shown or ids)
    return replace(plain, pairs=pairs)


_SUBJECT = ["dataset", "defense", "attacker"]
_ATTACKED = ["library", *_SUBJECT, "model", "attack", "norm", "params", "targeted", "route"]


def _has(party: tuple[str, ...], entry: str) -> bool:
    return ledger_name(load_library(party[0])) in entries()[entry].libraries


def _changed(run: Path, cell: str, other_run: Path, other: str) -> bool:
    a, b = (store.read(*where, images=True) for where in ((run, cell), (other_run, other)))
    assert a is not None
    assert b is not None
    return bool(np.abs(a.arrays["x_adv"] - b.arrays["x_adv"]).max(initial=0) > IMAGES)


def _key(row: pd.Series[Any], keys: list[str]) -> tuple[str, ...]:
    return tuple(str(row[key]) for key in keys)


def measure(
    run: Path, mark: Callable[[dict[str, list[str]]], None] | None = None, nudged: Sequence[Path] = ()
) -> Agreement:
    """Compare every pair of a run folder. Raises ``InputError`` when it holds no results.

    ``nudged`` are runs of the same suite, or a part of it, on images moved by a rounding. With them, the images that
    end elsewhere are set apart.

    ``mark`` stores which pixels have no gradient (``flat_pixels.mark``), so that they are set apart. It gets the cells
    in which such pixels could matter: name of the model -> ids.
    """
    import pandas as pd

    results = read_results(run)
    reconciled = bool(manifest.read(run).get("suite", {}).get("reconcile", False))
    origins = _origins(run)
    rows = [party for party in _parties(results) if party.status != "unsupported"]
    reader = lru_cache(maxsize=32)(lambda cell: _arrays(run, cell))
    table: list[dict[str, Any]] = []
    groups: dict[tuple[Any, ...], list[Party]] = {}
    for party in rows:
        groups.setdefault((origins.get(party.model, party.model), *party.attacked), []).append(party)
    pairs = [(key, a, b) for key, parties in groups.items() for a, b in itertools.combinations(parties, 2)]
    if mark is not None:
        mark(_to_mark(pairs, reader))
        reader.cache_clear()
    shaky = _unsteady(run, rows, nudged)
    shows: dict[str, bool] = {}
    for (model, *_), a, b in pairs:
        row = _row(model, a, b, reader, shaky, reconciled)
        table.append(row)
        for entry in differing(a.habits, b.habits):
            differs = row["verdict"] not in ("identical", "equal")
            shows[entry] = shows.get(entry, False) or differs
    stale = () if reconciled else tuple(name for name, shown in shows.items() if entries()[name].always and not shown)
    return Agreement(run, reconciled, pd.DataFrame(table, columns=list(COLUMNS)), stale)


@dataclass(frozen=True)
class Party:
    """One side of a pair: one library by one route on one model, in one attack, with one cell for each seed."""

    model: str
    framework: str
    library: str
    version: str
    route: str
    attacked: tuple[Any, ...]
    """data set, attack, norm, parameters (JSON), targeted, seeds, images, defense, attacker"""
    cells: tuple[str, ...]
    status: str
    reason: str
    forwards: float
    backwards: float

    @property
    def key(self) -> tuple[Any, ...]:
        """What identifies the party in another run of the suite."""
        return self.model, self.library, self.route, self.attacked

    @property
    def habits(self) -> tuple[Entry, ...]:
        """The ledger's entries that hold for the party in this attack."""
        _, attack, norm, params, *_ = self.attacked
        name = ledger_name(load_library(self.library))
        return habits(attack, norm, json.loads(params), name, self.version, self.framework, self.route)


def _parties(results: pd.DataFrame) -> Iterator[Party]:
    keys = ["dataset", "model", "framework", "library", "library_version", "route", "attack", "norm", "params"]
    newer = [name for name in ("defense", "attacker") if name in results]  # a run may be older than either
    for _, group in results.groupby([*keys, "targeted", *newer], sort=False, dropna=False):
        first = group.iloc[0].fillna({"defense": "none", "attacker": ""})
        bad = group[group["status"] != "done"]
        status, reason = ("done", "") if bad.empty else (str(bad["status"].iloc[0]), str(bad["reason"].iloc[0]))
        norm = first["norm"] if isinstance(first["norm"], str) else None
        yield Party(
            model=first["model"],
            framework=first["framework"],
            library=first["library"],
            version=first["library_version"],
            route=first["route"],
            attacked=(
                first["dataset"],
                first["attack"],
                norm,
                first["params"],
                bool(first["targeted"]),
                tuple(group["seed"]),
                int(first["n"]),
                first.get("defense", "none"),
                first.get("attacker", ""),
            ),
            cells=tuple(group["cell_id"]),
            status=status,
            reason=reason,
            forwards=float(group["forwards"].mean()),
            backwards=float(group["backwards"].mean()),
        )


def _origins(run: Path) -> dict[str, str]:
    """Name of each model of the suite -> the model from which it was exported or converted, or itself."""
    origins: dict[str, str] = {}
    for spec in manifest.read(run)["suite"]["models"]:
        source = spec.get("export") or spec.get("convert")
        origins[spec["name"]] = origins.get(source, source) if source else spec["name"]
    return origins


def _arrays(run: Path, cell: str) -> Arrays:
    result = store.read(run, cell, images=True)
    if result is None or not result.arrays:
        raise InputError(f"{store.cell_folder(run, cell)}: the images are missing; run the suite again")
    arrays = dict(result.arrays)
    flat = flat_pixels.marked(run, cell, arrays["x"].shape)
    return arrays if flat is None else {**arrays, "flat": flat}


def _to_mark(pairs: Iterable[tuple[Any, Party, Party]], reader: Callable[[str], Arrays]) -> dict[str, list[str]]:
    """By model, the cells of those pairs whose images differ and whose attack steps by the sign of a gradient."""
    cells: dict[str, dict[str, None]] = {}
    for _, a, b in pairs:
        canonical = catalogue().get((a.attacked[1], a.attacked[2]))
        if canonical is None or canonical.norm != "linf" or canonical.needs != "gradients" or canonical.ensemble:
            continue
        if "done" == a.status == b.status and _compared(a, b, reader, {})[0].max_abs_diff > IMAGES:
            for party in (a, b):
                cells.setdefault(party.model, {}).update(dict.fromkeys(party.cells))
    return {model: list(ids) for model, ids in cells.items()}


Shaky = dict[str, npt.NDArray[np.bool_]]
"""cell id -> which of its images are unsteady"""


def _unsteady(run: Path, parties: Sequence[Party], nudged: Sequence[Path]) -> Shaky:
    moved: dict[tuple[Any, ...], list[str]] = {}
    homes: dict[str, Path] = {}
    for folder in nudged:
        for party in _parties(read_results(folder)):
            for index, cell in enumerate(party.cells if party.status == "done" else ()):
                moved.setdefault((*party.key, index), []).append(cell)
                homes[cell] = folder
    shaky: Shaky = {}
    for party in parties:
        for index, cell in enumerate(party.cells):
            others = moved.get((*party.key, index), ())
            if others and party.status == "done":
                images = [_arrays(homes[other], other)["x_adv"] for other in others]
                shaky[cell] = unsteady(_arrays(run, cell)["x_adv"], images, IMAGES)  # type: ignore[arg-type]
    return shaky


def _compared(a: Party, b: Party, reader: Callable[[str], Arrays], shaky: Shaky) -> tuple[Compared, float]:
    """Compare two parties; also the share of images set apart, which is 0 where there are too many to set apart."""
    ones, others = [reader(cell) for cell in a.cells], [reader(cell) for cell in b.cells]
    apart = [
        shaky.get(one, np.zeros(len(arrays["y"]), bool)) | shaky.get(other, np.zeros(len(arrays["y"]), bool))
        for one, other, arrays in zip(a.cells, b.cells, ones, strict=True)
    ]
    share = float(np.concatenate(apart).mean()) if sum(map(len, apart)) else 0.0
    if 0 < share <= FEW:
        ones, others = _without(ones, apart), _without(others, apart)
    return compare(ones, others, a.attacked[2]), share if share <= FEW else 0.0


def _without(cells: Sequence[Arrays], apart: Sequence[npt.NDArray[np.bool_]]) -> list[Arrays]:
    return [{key: value[~gone] for key, value in arrays.items()} for arrays, gone in zip(cells, apart, strict=True)]


def _row(
    model: str, a: Party, b: Party, reader: Callable[[str], Arrays], shaky: Shaky, reconciled: bool
) -> dict[str, Any]:
    dataset, attack, norm, params, targeted, _, _, defense, attacker = a.attacked
    row: dict[str, Any] = {"attack": attack, "norm": norm, "params": params, "targeted": targeted, "model": model}
    row |= {"dataset": dataset, "defense": defense, "attacker": attacker}
    for side, party in (("a", a), ("b", b)):
        for key in ("library", "version", "route", "framework", "model", "forwards", "backwards"):
            row[f"{key}_{side}"] = getattr(party, key)
    failed = [f"{party.library}: {party.reason}" for party in (a, b) if party.status != "done"]
    if failed:
        ids = [entry.id for party in (a, b) if party.status != "done" for entry in party.habits]
        causes = "" if reconciled else " + ".join(dict.fromkeys(ids))
        return {**row, "n": 0, "verdict": "failed", "ledger_id": causes, "reason": "; ".join(failed), "reconciled": ""}
    compared, apart = _compared(a, b, reader, shaky)
    canonical = catalogue().get((attack, norm))
    minimal = canonical is not None and canonical.goal == "minimal"
    ensemble = canonical is not None and canonical.ensemble
    verdict = judge(compared, a.habits, b.habits, minimal=minimal, reconciled=reconciled, ensemble=ensemble)
    row |= {**asdict(compared), "images_unsteady": apart}
    return {**row, "verdict": verdict.name, "ledger_id": " + ".join(verdict.entries), "reason": "", "reconciled": ""}
