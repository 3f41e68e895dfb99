"""Every entry of the ledger: that it can be found in the library's source, that it shows, and that it can be taken away."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from packaging.specifiers import SpecifierSet

from sparring.adapters.attacks import ATTACKS
from sparring.adapters.ledger import Entry, entries, habits
from sparring.adapters.library import Library, Unsupported, library_names, load_library

ENTRIES = tuple(entries().values())
PAIRS = [(entry, load_library(name)) for entry in ENTRIES for name in entry.libraries]
every_entry = pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.id)
every_pair = pytest.mark.parametrize(
    ("entry", "library"), [pytest.param(*pair, id=f"{pair[0].id}-{pair[1].name}") for pair in PAIRS]
)


def test_each_is_there_once() -> None:
    text = Path(str(find_spec("sparring.adapters").origin)).with_name("ledger.yaml").read_text()  # type: ignore[union-attr]
    ids = re.findall(r"^- id: (\S+)", text, re.MULTILINE)
    assert len(ids) == len(set(ids)) == len(ENTRIES)


@pytest.mark.parametrize("library", [load_library(name) for name in library_names()], ids=lambda library: library.name)
def test_a_library_reconciles_its_own_entries_and_no_others(library: Library) -> None:
    assert set(library.reconciliations) == {entry.id for entry in ENTRIES if library.name in entry.libraries}


@every_pair
def test_it_is_about_attacks_that_the_library_has(entry: Entry, library: Library) -> None:
    for attack in entry.attacks:
        name, norm = attack.split()
        assert not isinstance(library.find(ATTACKS[name, norm]), Unsupported)  # type: ignore[index]


@every_pair
def test_the_installed_release_has_it(entry: Entry, library: Library) -> None:
    assert SpecifierSet(entry.libraries[library.name]).contains(library.version())


@every_pair
def test_its_place_in_the_source_exists(entry: Entry, library: Library) -> None:
    where = entry.where[library.name]
    files = re.findall(r"[\w/]+\.py", where)
    roots = {file.split("/")[0]: find_spec(file.split("/")[0]) for file in files}
    sources = [Path(roots[file.split("/")[0]].origin).parents[1].joinpath(file).read_text() for file in files]  # type: ignore[union-attr, arg-type]
    # Class.method, function_name, Class: whatever isn't a plain word
    names = re.findall(r"\b(?:[A-Za-z]\w*\.\w+|[a-z_]+_\w+|_\w+|[A-Z]\w*[a-z]\w*)\b", re.sub(r"[\w/]+\.py", "", where))
    assert files
    assert names
    for name in names:
        *cls, function = name.split(".")
        assert any(
            re.search(rf"\b{function}\b", source) and all(f"class {owner}" in source for owner in cls)
            for source in sources
        ), f"{name} is in none of {files}"


@every_entry
def test_its_parameters_are_canonical(entry: Entry) -> None:
    for attack in entry.attacks:
        name, norm = attack.split()
        assert set(entry.when) <= set(ATTACKS[name, norm].parameters)  # type: ignore[index]


def test_a_release_before_has_none() -> None:
    params: dict[str, Any] = {"random_start": True}
    assert habits("pgd", "linf", params, "art", "1.20.1")
    assert not habits("pgd", "linf", params, "art", "0.1")
