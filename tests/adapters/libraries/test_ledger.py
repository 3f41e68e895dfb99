"""Every entry of the ledger: that it can be found in the library's source, that it shows, and that it can be taken away."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from odd_models import digits, odd
from packaging.specifiers import SpecifierSet

from sparring.adapters.attacks.catalogue import ATTACKS
from sparring.adapters.attacks.library import Library, Unsupported, library_names, load_library
from sparring.adapters.attacks.run import Attacked, attack
from sparring.adapters.errors import LibraryError
from sparring.adapters.libraries.ledger import Entry, entries, habits

ENTRIES = tuple(entries().values())
PAIRS = [(entry, load_library(name)) for entry in ENTRIES for name in entry.libraries]
every_entry = pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.id)
every_pair = pytest.mark.parametrize(
    ("entry", "library"), [pytest.param(*pair, id=f"{pair[0].id}-{pair[1].name}") for pair in PAIRS]
)


def test_each_is_there_once() -> None:
    text = Path(str(find_spec("sparring.adapters.libraries").origin)).with_name("ledger.yaml").read_text()  # type: ignore[union-attr]
    ids = re.findall(r"^- id: (\S+)", text, re.MULTILINE)
    assert len(ids) == len(set(ids)) == len(ENTRIES)


@pytest.mark.parametrize("library", [load_library(name) for name in library_names()], ids=lambda library: library.name)
def test_a_library_reconciles_its_own_entries_and_no_others(library: Library) -> None:
    assert set(library.reconciliations) == {entry.id for entry in ENTRIES if library.name in entry.libraries}


@every_pair
def test_it_is_about_attacks_that_the_library_has(entry: Entry, library: Library) -> None:
    for name, norm in map(str.split, entry.attacks):
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
    for name, norm in map(str.split, entry.attacks):
        assert set(entry.when) <= set(ATTACKS[name, norm].parameters)  # type: ignore[index]


def test_a_release_before_has_none() -> None:
    params: dict[str, Any] = {"random_start": True}
    assert habits("pgd", "linf", params, "art", "1.20.1")
    assert not habits("pgd", "linf", params, "art", "0.1")


@dataclass(frozen=True)
class Case:
    """Where an entry shows: an attack, and the models (of torch; of Keras, for what has its own code there)."""

    attack: str
    params: dict[str, Any]
    torch: str | None = "one channel"
    keras: str | None = None
    images: int = 16


LINF: dict[str, Any] = {"eps": 0.05, "steps": 5}
L2: dict[str, Any] = {"eps": 0.5, "steps": 5}
HERE: dict[str, Any] = {**L2, "random_start": False}
CW: dict[str, Any] = {"steps": 40, "search_steps": 4, "learning_rate": 0.05}
CASES = {
    "cross-entropy-float32": Case("fgsm linf", {"eps": 0.05}, "more saturated", "keras saturated"),
    "cross-entropy-float32-mean": Case("fgsm linf", {"eps": 0.05}, "more saturated"),
    "linf-start-framework": Case("pgd linf", LINF),
    "linf-start-tensorflow": Case("pgd linf", LINF, None, "keras cnn"),
    "linf-start-numpy": Case("pgd linf", LINF, keras="keras cnn"),
    "l2-start-radius": Case("pgd l2", L2),
    "l2-start-foolbox": Case("pgd l2", L2),
    "l2-start-tensorflow": Case("pgd l2", L2, None, "keras cnn"),
    "l2-start-art": Case("pgd l2", L2, keras="keras cnn"),
    "l2-box-before-ball": Case("pgd l2", HERE, keras="keras cnn"),
    "l2-gradient-plus-1e-10": Case("pgd l2", HERE, "more saturated"),
    "l2-gradient-at-least-1e-12": Case("pgd l2", HERE, "more saturated", "keras saturated"),
    "l2-gradient-length-float32": Case("pgd l2", HERE, "more saturated", "keras saturated", images=64),
    "first-success-of-restarts": Case("pgd linf", {**LINF, "restarts": 3}, keras="keras cnn"),
    "last-success-of-restarts": Case("pgd linf", {**LINF, "restarts": 3}, keras="keras cnn"),
    "one-start": Case("pgd l2", {**L2, "restarts": 3}),
    "momentum-of-signs": Case("mi-fgsm linf", LINF, keras="keras cnn"),
    "look-ahead-by-mean": Case("ni-fgsm linf", LINF),
    "zero-gradient-nan": Case("ni-fgsm linf", LINF, "no gradient in the dark"),
    "deepfool-overshoot-in-the-loop": Case("deepfool l2", {}, keras="keras cnn"),
    "deepfool-overshoot-per-step": Case("deepfool l2", {}),
    "deepfool-distance-plus-1e-4": Case("deepfool l2", {}, keras="keras cnn", images=64),
    "deepfool-sum-beside-the-box": Case("deepfool l2", {}, "no gradient in the dark"),
    "deepfool-length-plus-1e-8": Case("deepfool l2", {}, "a tie between classes"),
    "deepfool-length-plus-1e-7": Case("deepfool l2", {}, "a tie between classes"),
    "deepfool-other-score": Case("deepfool l2", {"candidates": 3}, keras="keras cnn", images=6),
    "deepfool-tie-nan": Case("deepfool l2", {}, "no gradient in the dark"),
    "deepfool-all-classes": Case("deepfool l2", {"candidates": 2}, images=24),
    "cw-line-search": Case("cw l2", CW, keras="keras cnn", images=6),
    "cw-gradient-past-the-hinge": Case("cw l2", CW, keras="keras cnn", images=6),
    "cw-one-image-more": Case("cw l2", {**CW, "steps": 60, "search_steps": 5}, "no gradient in the dark"),
    "cw-doubles-c": Case("cw l2", {**CW, "initial_const": 0.02}, images=6),
    "cw-search-stands-still": Case("cw l2", {**CW, "initial_const": 0.2}, images=6),
    "cw-tanh-in-float32": Case("cw l2", {**CW, "steps": 100, "learning_rate": 0.2}),
    "cw-stops-with-the-batch": Case("cw l2", CW, keras="keras cnn"),
    "cw-stops-when-the-batch-rises": Case("cw l2", CW),
    "cw-distance-from-inside": Case("cw l2", {**CW, "initial_const": 1e-10}, images=6),
    "cw-last-c-is-the-upper-bound": Case("cw l2", {**CW, "search_steps": 10, "initial_const": 1e-12}, images=6),
    "cw-one-c": Case("cw l2", CW),
    "cw-border-pixels-stay": Case("cw l2", {**CW, "steps": 100, "learning_rate": 0.2}),
    "cw-success-without-confidence": Case("cw l2", {**CW, "confidence": 0.3}),
}
ELSEWHERE = {"jsma", "square", "pixle", "one-pixel", "hopskipjump", "boundary", "autoattack"}
"""The entries of these attacks are tested in test_ledger_search.py and test_ledger_autoattack.py."""


def test_each_entry_of_the_gradient_attacks_has_its_case() -> None:
    gradient = {entry.id for entry in ENTRIES if not {one.split()[0] for one in entry.attacks} & ELSEWHERE}
    assert gradient == set(CASES)


RUNS = [
    pytest.param(entry, library, model, route, id=f"{entry.id}-{library.name}-{framework}-{route}")
    for entry, library in PAIRS
    if entry.id in CASES
    for framework, model, route in (
        ("torch", CASES[entry.id].torch, "native"),
        ("torch", CASES[entry.id].torch, "bridged"),
        ("keras", CASES[entry.id].keras, "native"),
    )
    if model is not None
]


@pytest.mark.parametrize(("entry", "library", "model", "route"), RUNS)
def test_it_shows_and_is_taken_away(entry: Entry, library: Library, model: str, route: Any) -> None:
    """Beside the referee, all other differences taken away: with this one the images differ, without it they don't."""
    case = CASES[entry.id]
    classifier = odd(model)
    x = digits(classifier, case.images)
    y = classifier.logits(x).argmax(axis=1).astype(np.int64)
    name, norm = case.attack.split()
    params = ATTACKS[name, norm].resolve(case.params)  # type: ignore[index]
    names = [one.id for one in habits(name, norm, params, library.name, library.version(), classifier.framework, route)]
    assert entry.id in names

    def run(library: str, reconcile: Sequence[str] = (), route: Any = None) -> Attacked:
        return attack(
            classifier, x, y, name, norm=norm, library=library, route=route, reconcile=reconcile, params=case.params
        )

    referee = run("referee")
    apart = differ(run(library.name, names, route), referee)
    assert apart == 0
    try:
        apart = differ(run(library.name, [one for one in names if one != entry.id], route), referee)
    except LibraryError:
        apart = len(x) if entry.id in ("zero-gradient-nan", "deepfool-tie-nan") else 0
    assert apart > 0


def differ(result: Attacked, referee: Attacked) -> int:
    """How many images differ: by 1e-5 in a pixel where there is a budget; else by 1 % in distance, or in success."""
    if "eps" in result.call["kwargs"]:
        return int((np.abs(result.images - referee.images).max(axis=(1, 2, 3)) > 1e-5).sum())
    distance, truth = result.samples["l2"], referee.samples["l2"]
    return int(
        ((result.samples["success"] != referee.samples["success"]) | (abs(distance - truth) > 0.01 * truth)).sum()
    )
