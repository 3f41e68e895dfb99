"""The ledger: every known difference of a library from an attack's source, once; ``ledger.yaml`` holds the entries.

An entry is a habit of one or more libraries, told relative to the attack's source (the referee). Two libraries differ
by the entries that one of them has and the other has not.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

import yaml
from packaging.specifiers import SpecifierSet
from pydantic import BaseModel, ConfigDict, Field, field_validator

from sparring.adapters.attacks.library import Library

_COMPARE = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}


class Entry(BaseModel):
    """One difference: whose, in which attacks, why, where in the source, what it does, and how it is taken away."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=r"^[a-z0-9-]+$")
    attacks: tuple[str, ...] = Field(min_length=1, description="'name norm', as in 'pgd l2'")
    libraries: dict[str, str] = Field(min_length=1, description="library -> the releases that have it ('>=1.17')")
    when: dict[str, Any] = Field(
        default_factory=dict,
        description="canonical parameter -> the value, the list of values or the bound ('>1') under which it shows",
    )
    frameworks: tuple[str, ...] | None = Field(None, description="only on models of these; everywhere when absent")
    routes: tuple[str, ...] | None = Field(None, description="only by these; by both when absent")
    always: bool = Field(description="whether it shows on any ordinary model, so that equal images make it stale")
    cause: str = Field(description="one line")
    where: dict[str, str] = Field(description="library -> file and function of its source")
    effect: str = Field(description="one line: what it does to images, distances or success, as the entry's test finds")
    reconciliation: str = Field(description="one line: the parameters or the wrapper that take it away")
    remains: str | None = Field(None, description="what the reconciliation leaves, and why")

    @field_validator("attacks")
    @classmethod
    def _name_and_norm(cls, attacks: tuple[str, ...]) -> tuple[str, ...]:
        for attack in attacks:
            if len(attack.split()) != 2:
                raise ValueError(f"{attack!r}: write 'name norm'")
        return attacks

    def applies(
        self,
        attack: str,
        norm: str | None,
        params: Mapping[str, Any],
        library: str,
        version: str,
        framework: str | None = None,
        route: str | None = None,
    ) -> bool:
        """Whether this library, in this release, differs by it in this attack with these canonical parameters."""
        return (
            f"{attack} {norm}" in self.attacks
            and library in self.libraries
            and SpecifierSet(self.libraries[library]).contains(version, prereleases=True)
            and (self.frameworks is None or framework is None or framework in self.frameworks)
            and (self.routes is None or route is None or route in self.routes)
            and all(_holds(params.get(key), wanted) for key, wanted in self.when.items())
        )


def _holds(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, list):
        return value in wanted
    if isinstance(wanted, str):
        for sign, compare in _COMPARE.items():
            if wanted.startswith(sign):
                return value is not None and bool(compare(value, float(wanted.removeprefix(sign))))
    return bool(value == wanted)


@cache
def entries() -> dict[str, Entry]:
    """Every entry by its id, in the file's order."""
    text = resources.files("sparring.adapters.libraries").joinpath("ledger.yaml").read_text("utf-8")
    found = [Entry.model_validate(content) for content in yaml.safe_load(text) or ()]
    return {entry.id: entry for entry in found}


_OF_PACKAGE = {"adversarial-robustness-toolbox": "art", "foolbox": "foolbox", "torchattacks": "torchattacks"}


def whose(library: Library) -> str:
    """The name by which the ledger knows a library: a working copy under another name has its original's habits."""
    return _OF_PACKAGE.get(library.package, library.name)


def habits(
    attack: str,
    norm: str | None,
    params: Mapping[str, Any],
    library: str,
    version: str,
    framework: str | None = None,
    route: str | None = None,
) -> tuple[Entry, ...]:
    """The entries that a library has in one attack."""
    return tuple(
        entry for entry in entries().values() if entry.applies(attack, norm, params, library, version, framework, route)
    )
