"""Every entry of the ledger about a search or decision attack: that it shows, and that it can be taken away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from models_for_tests import cnn
from odd_models import digits, odd

from sparring.adapters.attacks.catalogue import ATTACKS
from sparring.adapters.attacks.library import Library, load_library
from sparring.adapters.attacks.run import Attacked, attack
from sparring.adapters.errors import LibraryError
from sparring.adapters.libraries.ledger import entries, habits

SEARCHES = {"jsma", "square", "pixle", "one-pixel", "hopskipjump", "boundary"}
ENTRIES = {name: entry for name, entry in entries().items() if {one.split()[0] for one in entry.attacks} & SEARCHES}


@dataclass(frozen=True)
class Case:
    """Where an entry shows: an attack, a model of ``odd_models`` or the shape of the images, and how many."""

    attack: str
    params: dict[str, Any]
    model: str | tuple[int, int, int] = "one channel"
    images: int = 6
    targeted: bool = False
    bright: bool = False
    dark: bool = False
    fails: tuple[str, ...] = ()
    """the libraries that raise where they have it"""


LINF: dict[str, Any] = {"eps": 0.05, "queries": 40}
L2: dict[str, Any] = {"eps": 0.5, "queries": 40}
SQUARE = {
    "square-draws-numpy": [Case("square linf", LINF), Case("square l2", L2)],
    "square-draws-torch": [Case("square linf", LINF), Case("square l2", L2)],
    "square-one-window-for-all": [Case("square linf", LINF), Case("square l2", L2)],
    "square-window-never-last": [Case("square linf", LINF), Case("square l2", L2)],
    "square-window-beyond-the-image": [
        Case("square l2", {**L2, "p_init": 1, "queries": 2000}, (1, 4, 4), 2, fails=("art", "torchattacks"))
    ],
    "square-one-query-more": [Case("square linf", LINF), Case("square l2", L2)],
    "square-schedule-unrounded": [Case("square linf", {"eps": 0.02, "queries": 198})],
    "square-start-only-if-better": [
        Case("square linf", {"eps": 0.02, "queries": 10}, images=16),
        Case("square l2", L2),
    ],
    "square-last-start-counts": [
        Case("square linf", {"eps": 0.01, "queries": 6, "restarts": 3}),
        Case("square l2", {"eps": 0.05, "queries": 6, "restarts": 3}),
    ],
    "square-failure-is-clean": [
        Case("square linf", {"eps": 0.01, "queries": 6, "restarts": 3}),
        Case("square l2", {"eps": 0.05, "queries": 6}),
    ],
    "square-wins-by-label": [Case("square linf", LINF, "a tie between classes", 16)],
    "square-tie-wins": [Case("square linf", LINF, "a tie between classes", 16)],
    "square-success-beats-the-loss": [Case("square linf", {"eps": 0.2, "queries": 40}, images=24, targeted=True)],
    "square-float32": [Case("square l2", L2)],
    "square-l2-length-plus-1e-12": [Case("square l2", L2)],
    "square-l2-tiles-in-the-corner": [Case("square l2", L2)],
    "square-l2-more-tiles": [Case("square l2", L2), Case("square l2", L2, (1, 12, 12), fails=("torchattacks",))],
    "square-l2-cut-bumps": [Case("square l2", L2)],
    "square-l2-halves-of-one-length": [Case("square l2", L2)],
    "square-l2-divided-by-length": [Case("square l2", L2)],
    "square-l2-window-of-all-channels": [Case("square l2", L2, "three channels")],
}
JSMA = {
    "jsma-two-best-single": [Case("jsma l0", {}), Case("jsma l0", {"theta": -0.3, "gamma": 0.3})],
    "jsma-counts-features": [Case("jsma l0", {}), Case("jsma l0", {"theta": 0.3, "gamma": 0.3})],
    "jsma-rounds-up": [Case("jsma l0", {})],
    "jsma-no-pair": [Case("jsma l0", {}, "no gradient in the dark")],
    "jsma-domain-below-the-bound": [Case("jsma l0", {}, bright=True), Case("jsma l0", {"theta": -1.0}, dark=True)],
    "jsma-pixel-once": [Case("jsma l0", {"theta": 0.3, "gamma": 0.3})],
    "jsma-never-decreases": [Case("jsma l0", {"theta": -1.0})],
}
BESIDE_THE_REFEREE = {**SQUARE, **JSMA}
HOPS: dict[str, Any] = {"steps": 4, "initial_evaluations": 20, "max_evaluations": 200}
HOPSKIPJUMP = [Case("hopskipjump l2", HOPS), Case("hopskipjump linf", HOPS)]
BOUNDARY = [Case("boundary l2", {"steps": 60}), Case("boundary l2", {"steps": 60}, "three channels", targeted=True)]
ONE_PIXEL = [
    Case("one-pixel l0", {"pixels": 3, "steps": 2}),
    Case("one-pixel l0", {"pixels": 2, "steps": 2}, "three channels"),
]
BESIDE_EACH_OTHER = {
    "hopskipjump-draws-numpy": HOPSKIPJUMP,
    "hopskipjump-draws-framework": HOPSKIPJUMP,
    "hopskipjump-coarse-search": HOPSKIPJUMP,
    "hopskipjump-ends-beyond": HOPSKIPJUMP,
    "hopskipjump-probes-by-the-boundary": HOPSKIPJUMP,
    "hopskipjump-probes-of-the-batch": HOPSKIPJUMP,
    "hopskipjump-length-of-the-batch": HOPSKIPJUMP[:1],
    "hopskipjump-search-of-the-batch": HOPSKIPJUMP[1:],
    "hopskipjump-float32": HOPSKIPJUMP[1:],
    "boundary-draws-numpy": BOUNDARY,
    "boundary-draws-framework": BOUNDARY,
    "boundary-one-direction-for-all": BOUNDARY,
    "boundary-many-proposals": BOUNDARY,
    "boundary-scaled-off-the-sphere": BOUNDARY,
    "one-pixel-of-logits": ONE_PIXEL,
    "one-pixel-of-bytes": ONE_PIXEL,
    "one-pixel-latin-hypercube": ONE_PIXEL,
    "one-pixel-population-400": [Case("one-pixel l0", {"pixels": 2, "steps": 2, "population": 60})],
    "one-pixel-failure-is-clean": ONE_PIXEL,
}
OWNERS = {"hopskipjump": ("art", "foolbox"), "boundary": ("art", "foolbox"), "one-pixel": ("art", "torchattacks")}
"""Of the attacks that the referee lacks."""


def problem(case: Case) -> tuple[Any, np.ndarray, np.ndarray]:
    classifier = odd(case.model) if isinstance(case.model, str) else cnn(case.model)
    x = digits(classifier, case.images)
    if case.bright or case.dark:  # just short of the bound
        x = np.where(x > 0.4, 0.995, x) if case.bright else np.where(x < 0.6, 0.005, x)
        x = x.astype(np.float32)
    y = classifier.logits(x).argmax(axis=1).astype(np.int64)
    if case.model == "a tie between classes":
        y[y == 8] = 9  # the other of the two that always score the same
    return classifier, x, y


def own(library: Library, case: Case, framework: str) -> list[str]:
    """The ids of the entries that a library has there."""
    name, norm = case.attack.split()
    params = ATTACKS[name, norm].resolve(case.params)  # type: ignore[index]
    return [one.id for one in habits(name, norm, params, library.name, library.version(), framework, "native")]


RUNS: dict[str, Attacked] = {}
"""Most entries are beside the same others."""


def run(case: Case, library: str, reconcile: Sequence[str] = (), route: Any = None) -> Attacked:
    key = repr((case, library, reconcile, route))
    if key not in RUNS:
        RUNS[key] = run_anew(case, library, reconcile, route)
    return RUNS[key]


def run_anew(case: Case, library: str, reconcile: Sequence[str], route: Any) -> Attacked:
    classifier, x, y = problem(case)
    name, norm = case.attack.split()
    return attack(
        classifier,
        x,
        y,
        name,
        norm=norm,
        library=library,
        route=route,
        reconcile=reconcile,
        params=case.params,
        targeted=case.targeted,
    )


def gap(result: Attacked, other: Attacked) -> float:
    return float(np.abs(result.images - other.images).max())


CASES = [
    pytest.param(entry, library, case, id=f"{entry}-{library}-{case.attack}")
    for entry, cases in BESIDE_THE_REFEREE.items()
    for library in ENTRIES[entry].libraries
    for case in cases
]


@pytest.mark.parametrize(("entry", "library", "case"), CASES)
def test_it_shows_and_is_taken_away(entry: str, library: str, case: Case) -> None:
    """Beside the referee, all other differences taken away: with this one the images differ, without it they don't."""
    classifier, _, _ = problem(case)
    names = own(load_library(library), case, classifier.framework)
    assert entry in names
    referee = run(case, "referee")
    assert gap(run(case, library, names), referee) < 1e-5
    assert gap(run(case, library, names, "bridged"), referee) < 1e-5
    without = [one for one in names if one != entry]
    if library in case.fails:
        with pytest.raises(LibraryError):
            run(case, library, without)
    else:
        assert gap(run(case, library, without), referee) > 1e-5


PAIRS = [
    pytest.param(entry, library, case, id=f"{entry}-{library}-{case.attack}-{case.model}")
    for entry, cases in BESIDE_EACH_OTHER.items()
    for library in ENTRIES[entry].libraries
    for case in cases
]


@pytest.mark.parametrize(("entry", "library", "case"), PAIRS)
def test_it_shows_beside_the_other_library_and_is_taken_away(entry: str, library: str, case: Case) -> None:
    """All other differences of both taken away: with this one the images differ, without it they don't."""
    classifier, _, _ = problem(case)
    (other,) = set(OWNERS[case.attack.split()[0]]) - {library}
    names, others = (own(load_library(name), case, classifier.framework) for name in (library, other))
    assert entry in names
    reconciled = run(case, other, others)
    assert gap(run(case, library, names), reconciled) < 1e-5
    assert gap(run(case, library, names, "bridged"), reconciled) < 1e-5
    assert gap(run(case, library, [one for one in names if one != entry]), reconciled) > 1e-5


@pytest.mark.parametrize("case", [*HOPSKIPJUMP, *BOUNDARY], ids=lambda case: f"{case.attack}-{case.model}")
def test_foolbox_on_tensorflow_is_reconciled_too(case: Case) -> None:
    on_keras = replace(case, model="keras cnn")
    art, foolbox = (
        run(on_keras, name, own(load_library(name), on_keras, "keras-tensorflow")) for name in ("art", "foolbox")
    )
    assert art.route == foolbox.route == "native"
    assert gap(art, foolbox) < 1e-5
    assert gap(run(on_keras, "foolbox"), run(on_keras, "art")) > 1e-5


def test_each_has_its_case() -> None:
    assert set(ENTRIES) == {*BESIDE_THE_REFEREE, *BESIDE_EACH_OTHER}
