"""What a profile makes smaller than the paper's: the keys of the suite that differ, with both values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sparring.suites.plan.file import Suite, load_suite

_WORDS = ("name", "description", "protocol", "published", "profiles")
"""Keys that change nothing that is computed."""


def reduced(
    source: str | Path | Mapping[str, Any], suite: Suite, profile: str | None, overrides: Iterable[str]
) -> list[dict[str, Any]]:
    """``key``, ``here``, ``paper`` for every key whose value differs from the profile ``paper``; empty without one.

    Absent keys and list items are None. Of a list of mappings that is longer or shorter the lengths are told.
    """
    if "paper" not in suite.profiles or (profile == "paper" and not list(overrides)):
        return []
    here, paper = _plain(suite), _plain(load_suite(source, profile="paper"))
    return [{"key": key, "here": a, "paper": b} for key, a, b in _differences("", here, paper)]


def _plain(suite: Suite) -> dict[str, Any]:
    return {key: value for key, value in suite.model_dump(mode="json").items() if key not in _WORDS}


def _differences(place: str, here: Any, paper: Any) -> list[tuple[str, Any, Any]]:
    if here == paper:
        return []
    if isinstance(here, dict) and isinstance(paper, dict):
        keys = [*here, *(key for key in paper if key not in here)]
        return [item for key in keys for item in _differences(_join(place, key), here.get(key), paper.get(key))]
    if _is_table(here) and _is_table(paper):
        if len(here) != len(paper):
            return [(place, f"{len(here)} of them", f"{len(paper)} of them")]
        pairs = enumerate(zip(here, paper, strict=True))
        return [item for i, (a, b) in pairs for item in _differences(_join(place, _name(a, b, i)), a, b)]
    return [(place, here, paper)]


def _join(place: str, key: str) -> str:
    return f"{place}.{key}" if place else key


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict | list) for item in value)


def _name(a: Any, b: Any, index: int) -> str:
    """An item of a list by its name, where both have the same, else by its place."""
    for key in ("name", "attack", "defense"):  # a model's own `attack` says yes or no
        if isinstance(a, dict) and isinstance(b, dict) and isinstance(a.get(key), str) and a[key] == b.get(key):
            return str(a[key])
    return str(index)
