"""From a suite to its cells: which attack of which library on which model, by which route, with which seed."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from functools import cache
from itertools import product

from sparring.adapters.ledger import habits, whose
from sparring.adapters.library import Library, load_library
from sparring.adapters.support import Request, why_not
from sparring.models.datasets import Dataset
from sparring.models.ref import ModelRef
from sparring.models.spec import ModelSpec
from sparring.suites.cell import Cell
from sparring.suites.suite import Suite

_RUNS_ON = {  # which packages' releases a framework's numbers depend on, beside torch, which carries every bridge
    "torch": (),
    "keras-torch": ("keras",),
    "keras-tensorflow": ("keras", "tensorflow"),
    "keras-jax": ("keras", "jax", "jaxlib"),
    "onnx": ("onnxruntime", "onnxruntime-gpu"),
}


@dataclass(frozen=True)
class Planned:
    """A row to be: the cell, the name that the suite gives its model, and, where it can't run, why."""

    model: str
    cell: Cell
    asked: Request
    unsupported: str | None


@cache
def package_version(package: str) -> str | None:
    """The installed release, without importing the package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def releases(ref: ModelRef) -> dict[str, str]:
    """The installed releases of the packages on which a model's numbers depend."""
    names = ("torch", *(package for framework in ref.frameworks for package in _RUNS_ON[framework]))
    return {name: version for name in names if (version := package_version(name))}


def plan(suite: Suite, data: Dataset, models: dict[str, ModelRef]) -> list[Planned]:
    """Every row of the suite for the models that are given (by name), in the suite's order; the same each time."""
    rows = []
    for spec in suite.attacked:
        ref = models.get(spec.name)
        if ref is not None:
            rows += [row for asked, name in _attacks(suite) for row in _rows(suite, data, spec, ref, asked, name)]
    return rows


def count(suite: Suite) -> int:
    """How many rows each model will have; known before any model exists."""
    routes = len(suite.routes) if suite.routes else 1
    return len(_attacks(suite)) * routes * len(suite.seeds)


def _attacks(suite: Suite) -> list[tuple[Request, str]]:
    found = []
    for spec in suite.attacks:
        for asked in spec.requests():
            names = (asked.raw_library,) if asked.raw_library else (spec.libraries or suite.libraries)
            found += [(asked, name) for name in names if name]
    return found


def _rows(suite: Suite, data: Dataset, spec: ModelSpec, ref: ModelRef, asked: Request, name: str) -> list[Planned]:
    library = load_library(name)
    packages = {library.package: library.version(), **releases(ref)}
    there = library.routes(ref.framework)
    reason = why_not(library, asked, ref.framework, ref.lacks)
    rows = []
    for route in suite.routes or there[:1]:
        lacks = None if route in there else f"{name} has no {route} route to {ref.framework}"
        for seed, taken in product(suite.seeds, _taken_away(suite, library, asked, ref.framework, route)):
            cell = Cell(
                dataset=data.name,
                data_digest=data.digest,
                model=ref,
                library=name,
                versions=packages,
                route=route,
                attack=asked.name,
                norm=asked.norm,
                params=asked.params,
                targeted=asked.targeted,
                seed=seed,
                batch_size=suite.batch_size,
                start=0,
                stop=len(data.x),
                reconcile=taken,
                nudge=suite.nudge,
            )
            rows.append(Planned(spec.name, cell, asked, reason or lacks))
    return rows


def _taken_away(suite: Suite, library: Library, asked: Request, framework: str, route: str) -> list[tuple[str, ...]]:
    """The ledger's entries that the rows of one attack are run without: a row for each of the tuples."""
    if not suite.reconcile:
        return [()]
    own = (
        habits(asked.name, asked.norm, asked.params, whose(library), library.version(), framework, route)
        if asked.canonical is not None
        else ()
    )
    able = [entry for entry in own if entry.id in library.reconciliations]
    if suite.reconcile == "each":
        return [(entry.id,) for entry in able if not entry.always]
    return [tuple(entry.id for entry in able)]
