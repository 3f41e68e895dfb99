"""The ledger: every known difference between a library and an attack's source, once. ``ledger.yaml`` holds the entries.

An entry is a habit of one or more libraries, relative to the attack's source (the referee). Two libraries differ by the
entries that only one of them has.
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
    """One difference: its libraries and attacks, its cause, its place, its effect, and how it is taken away."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=r"^[a-z0-9-]+$")
    attacks: tuple[str, ...] = Field(min_length=1, description="'name norm', as in 'pgd l2'")
    libraries: dict[str, str] = Field(
        min_length=1, description="library -> its releases with the difference ('>=1.17')"
    )
    when: dict[str, Any] = Field(
        default_factory=dict,
        description="canonical parameter -> the value, list of values or bound ('>1') with which it shows",
    )
    frameworks: tuple[str, ...] | None = Field(
        None, description="on models of these frameworks only; on all when absent"
    )
    routes: tuple[str, ...] | None = Field(None, description="by these routes only; by both when absent")
    always: bool = Field(
        description="whether it shows on every ordinary model: then equal images mean that the entry is stale"
    )
    cause: str = Field(description="one line")
    where: dict[str, str] = Field(description="library -> file and function of its source")
    effect: str = Field(description="one line: its effect on images, distances or success, as the entry's test shows")
    reconciliation: str = Field(description="one line: what takes it away")
    remains: str | None = Field(None, description="the difference that the reconciliation leaves, and why")

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
        """Whether this release of a library has the difference in this attack with these canonical parameters."""
        return (
            f"{attack} {norm}" in self.attacks
            and library in self.libraries
            and SpecifierSet(self.libraries[library]).contains(version, prereleases=True)
            and (self.frameworks is None or framework is None or framework in self.frameworks)
            and (self.routes is None or route is None or route in self.routes)
            and all(_holds(params.get(key), condition) for key, condition in self.when.items())
        )


def _holds(value: Any, condition: Any) -> bool:
    if isinstance(condition, list):
        return value in condition
    if isinstance(condition, str):
        for sign, compare in _COMPARE.items():
            if condition.startswith(sign):
                return value is not None and bool(compare(value, float(condition.removeprefix(sign))))
    return bool(value == condition)


@cache
def entries() -> dict[str, Entry]:
    """Every entry by its id, in the file's order."""
    text = resources.files("sparring.adapters.libraries").joinpath("ledger.yaml").read_text("utf-8")
    all_entries = [Entry.model_validate(content) for content in yaml.safe_load(text) or ()]
    return {entry.id: entry for entry in all_entries}


_OF_PACKAGE = {"adversarial-robustness-toolbox": "art", "foolbox": "foolbox", "torchattacks": "torchattacks"}


def ledger_name(library: Library) -> str:
    """The library's name in the ledger: a working copy under another name has the habits of its original."""
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
    """The entries of a library for one attack."""
    return tuple(
        entry for entry in entries().values() if entry.applies(attack, norm, params, library, version, framework, route)
    )
