"""From a suite to its cells: which attack of which library on which model, by which route, with which seed."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from math import prod
from typing import Literal

from sparring.adapters.attacks.library import Library, load_library
from sparring.adapters.attacks.request import Request, why_not
from sparring.adapters.errors import InputError, unknown
from sparring.adapters.libraries.ledger import habits, ledger_name
from sparring.adapters.libraries.own import bridge as own
from sparring.models.data.datasets import Dataset
from sparring.models.defenses import catalogue as defenses
from sparring.models.model_spec import ModelSpec
from sparring.models.prepared.model_ref import ModelRef
from sparring.models.spec import DataSpec
from sparring.suites.plan.cell import Cell
from sparring.suites.plan.expand import origin
from sparring.suites.plan.file import Suite
from sparring.suites.plan.keys import PLAIN, Attacker, AttackSpec, VariantSpec

_RUNS_ON = {  # which packages' releases a framework's numbers depend on, beside torch, which carries every bridge
    "torch": (),
    "keras-torch": ("keras",),
    "keras-tensorflow": ("keras", "tensorflow"),
    "keras-jax": ("keras", "jax", "jaxlib"),
    "onnx": ("onnxruntime", "onnxruntime-gpu"),
}


@dataclass(frozen=True)
class Planned:
    """A row to be: the cell, whose it is, and, where it can't run, why."""

    model: str
    """the model's own name; of a defended model with the defenses in it"""
    origin: str
    """the name that the suite gives the model"""
    defense: str
    """the chain of its defenses; ``none`` without any"""
    data: DataSpec
    cell: Cell
    asked: Request
    unsupported: str | None
    variant: str = ""
    """the name of the way in which the attack is run; empty where the suite names none"""
    aim: str = ""
    """the name of the class that every image is to be taken for; empty without one"""

    @property
    def title(self) -> str:
        """What it is, in a line."""
        eps = f" eps={self.asked.eps:.4g}" if self.asked.eps is not None else ""
        more = "".join(f", {word}" for word in (self.cell.attacker, self.variant) if word)
        aim = f" → {self.aim}" if self.aim else ""
        return f"{self.model} on {self.cell.dataset}: {self.cell.library} {self.asked.name}{aim}{eps}{more}"


@cache
def package_version(package: str) -> str | None:
    """The installed release, without importing the package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def releases(ref: ModelRef) -> dict[str, str]:
    """The installed releases of the packages on which a model's numbers depend."""
    names = ["torch", *(package for framework in ref.frameworks for package in _RUNS_ON[framework])]
    if ref.wrappers:
        names += ["pillow", "scipy"]
    if any(spec.defense.startswith("art:") for spec in ref.wrappers):
        names.append("adversarial-robustness-toolbox")
    return {name: version for name in names if (version := package_version(name))}


def _of_parts(library: str, wanted: Request) -> dict[str, str]:
    """The installed releases of what an attack of our own is made of."""
    names = own.packages(wanted) if library == "sparring" else ()
    return {name: version for name in names if (version := package_version(name))}


def plan(suite: Suite, data: Dataset, models: dict[str, ModelRef]) -> list[Planned]:
    """Every row of a suite of one data set (``expand.parts``) for the models that are given (by name).

    In the suite's order, and the same each time. Raises ``InputError`` as ``check`` does.
    """
    rows = []
    for spec in suite.attacked:
        ref = models.get(spec.name)
        if ref is not None:
            for one in every_attack(suite, spec):
                for attacker in _attackers(one.spec.attackers or suite.attackers, ref):
                    rows += _rows(suite, data, spec, ref, one, attacker)
    return rows


def check(suite: Suite, data: Dataset) -> None:
    """Raise ``InputError`` for an attack that wants of the data what they have not, before any model is made."""
    for spec in suite.attacked:
        for one in every_attack(suite, spec):
            _class(one.target, data, one.asked.name)
            if one.asked.canonical is not None and one.asked.canonical.fits and not data.fit_digest:
                raise InputError(
                    f"{one.asked.name} is trained on other images first: say how many, `fit` of the data {data.name}"
                )


def count(suite: Suite, spec: ModelSpec) -> int:
    """How many rows a model will have; known before any model exists."""
    routes = len(suite.routes) if suite.routes else 1
    rows = sum(
        len(one.spec.attackers or suite.attackers) if defenses.wrappers(spec.defenses) else 1
        for one in every_attack(suite, spec)
    )
    return rows * routes * len(suite.seeds)


@dataclass(frozen=True)
class Asked:
    """One attack of one library in one variant."""

    spec: AttackSpec
    asked: Request
    library: str
    variant: VariantSpec
    target: str | int | None


def usual_batch(shape: Sequence[int]) -> int:
    """How many images (C, H, W) an attack gets at once unless told: 128, of images above 64 pixels fewer, a power of 2.

    What a network keeps for its gradients grows with the image: 128 of 224 pixels would take MobileNet v2 8 GB.
    """
    room = 128 * 3 * 64 * 64 // prod(shape)
    return int(min(128, 2 ** max(0, room.bit_length() - 1)))


def every_attack(suite: Suite, spec: ModelSpec) -> list[Asked]:
    """What a model of a suite of one data set is attacked with, in the suite's order; known before any model exists."""
    attacks_of_model = []
    for attack in suite.attacks:
        if attack.models is not None and origin(spec) not in attack.models:
            continue
        ways = [way for way in suite.variants or (PLAIN,) if _runs(way, suite, spec, attack)]
        for wanted, target in product(attack.requests(), attack.targets):
            names = (wanted.raw_library,) if wanted.raw_library else (attack.libraries or suite.libraries)
            attacks_of_model += [
                Asked(attack, wanted, name, way, target)
                for way in ways
                for name in names
                if name and name in (way.libraries or (name,))
            ]
    return attacks_of_model


def _runs(way: VariantSpec, suite: Suite, spec: ModelSpec, attack: AttackSpec) -> bool:
    if not way.name:
        return True
    places = ((way.data, suite.one_data.label), (way.models, origin(spec)), (way.defenses, spec.defense))
    return way.takes(attack) and all(only is None or name in only for only, name in places)


def _attackers(attackers: tuple[Attacker, ...], ref: ModelRef) -> tuple[Literal["", "unaware", "aware"], ...]:
    return attackers if ref.wrappers else ("",)


def _rows(
    suite: Suite,
    data: Dataset,
    spec: ModelSpec,
    ref: ModelRef,
    one: Asked,
    attacker: Literal["", "unaware", "aware"],
) -> list[Planned]:
    wanted, name, way = one.asked, one.library, one.variant
    library = load_library(name)
    packages = {library.package: library.version(), **_of_parts(name, wanted), **releases(ref)}
    blind = attacker == "unaware" and not defenses.seen_by_unaware(ref.wrappers)
    framework, without = (ref.framework, ref.undefended.lacks) if blind else (ref.seen_as, ref.lacks)
    if way.space != "pixels" or way.temperature != 1:
        framework = "defended"
    there = library.routes(framework)
    reason = why_not(library, wanted, framework, without)
    fits = wanted.canonical is not None and wanted.canonical.fits
    aim = _class(one.target, data, wanted.name)
    named = "" if aim is None else data.class_names[aim]
    rows = []
    for route in suite.routes or there[:1]:
        lacks = None if route in there else f"{name} has no {route} route to {framework}"
        for seed, taken in product(suite.seeds, _taken_away(suite, library, wanted, framework, route)):
            cell = Cell(
                dataset=data.name,
                data_digest=data.digest,
                model=ref,
                library=name,
                versions=packages,
                route=route,
                attack=wanted.name,
                norm=wanted.norm,
                params=wanted.params,
                targeted=wanted.targeted,
                seed=seed,
                batch_size=suite.batch_size or usual_batch(data.x.shape[1:]),
                start=0,
                stop=len(data.x),
                defense=tuple(one.label for one in spec.defenses),
                attacker=attacker,
                reconcile=taken,
                nudge=suite.nudge,
                space=way.space,
                temperature=way.temperature,
                aim=aim,
                fit_digest=data.fit_digest if fits else "",
            )
            subject = (spec.name, origin(spec), spec.defense, suite.one_data)
            rows.append(Planned(*subject, cell, wanted, reason or lacks, way.name, named))
    return rows


def _class(target: str | int | None, data: Dataset, attack: str) -> int | None:
    """The class that is meant by a name or a number. Raises ``InputError`` for one that the data have not."""
    names = data.class_names
    if target is None:
        return None
    if isinstance(target, str) and target in names:
        return names.index(target)
    if isinstance(target, int) and 0 <= target < len(names):
        return target
    if isinstance(target, int):
        raise InputError(f"{attack}: target: {target} is no class of {data.name}: 0 to {len(names) - 1}")
    raise InputError(f"{attack}: target: {unknown(f'class of {data.name}', target, names)}")


def _taken_away(suite: Suite, library: Library, wanted: Request, framework: str, route: str) -> list[tuple[str, ...]]:
    """The ledger's entries that the rows of one attack are run without: a row for each of the tuples."""
    if not suite.reconcile:
        return [()]
    own = (
        habits(wanted.name, wanted.norm, wanted.params, ledger_name(library), library.version(), framework, route)
        if wanted.canonical is not None
        else ()
    )
    able = [entry for entry in own if entry.id in library.reconciliations]
    if suite.reconcile == "each":
        return [(entry.id,) for entry in able if not entry.always]
    return [tuple(entry.id for entry in able)]
