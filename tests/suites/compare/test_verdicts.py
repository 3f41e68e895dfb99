"""The rule, case by case."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sparring.adapters.libraries.ledger import Entry
from sparring.suites.compare.pairs import Compared
from sparring.suites.compare.verdicts import RULES, judge


def entry(name: str, remains: str | None = None) -> Entry:
    return Entry(
        id=name,
        attacks=("pgd l2",),
        libraries={"art": ">=1"},
        always=True,
        cause="c",
        where={"art": "w"},
        effect="e",
        reconciliation="r",
        remains=remains,
    )


def compared(**more: Any) -> Compared:
    zero: dict[str, Any] = dict.fromkeys(Compared.__dataclass_fields__, 0.0)
    return Compared(**{**zero, "n": 10, "label_agreement": 1.0, "p_value": 1.0, "distance_ratio": 1.0, **more})


ART, FOOLBOX = entry("box-first"), entry("other-norm", remains="a little")


def verdict(pair: Compared, a: Any = (), b: Any = (), minimal: bool = False, reconciled: bool = False) -> str:
    return str(judge(pair, a, b, minimal=minimal, reconciled=reconciled))


def test_only_the_same_pixels_are_identical() -> None:
    assert verdict(compared(), (ART,)) == "identical"
    assert verdict(compared(max_abs_diff_flat=0.2)) == "equal"
    assert verdict(compared(max_abs_diff=1e-9)) == "equal"


def test_images_are_equal_within_the_tolerance_whatever_the_ledger_says() -> None:
    assert verdict(compared(max_abs_diff=1e-5), (ART,)) == "equal"
    assert verdict(compared(max_abs_diff=1.1e-5)) == "unexplained"


def test_same_labels_and_distances_make_attacks_for_the_nearest_image_equal() -> None:
    pair = compared(max_abs_diff=0.1, distance_ratio=1.00005)
    assert verdict(pair, minimal=True) == "equal"
    assert verdict(pair) == "unexplained"
    assert verdict(compared(max_abs_diff=0.1, label_agreement=0.9), minimal=True) == "unexplained"
    assert verdict(compared(max_abs_diff=0.1, distance_ratio=1.005), minimal=True) == "unexplained"


def test_of_an_attack_made_of_several_the_same_images_have_to_fall() -> None:
    def of_several(pair: Compared, reconciled: bool = False) -> str:
        return str(judge(pair, (FOOLBOX,), (), minimal=False, reconciled=reconciled, ensemble=True))

    other_pictures = {"max_abs_diff": 0.2, "label_agreement": 0.8, "images_differing": 1.0}
    assert of_several(compared(**other_pictures)) == "equal"
    assert verdict(compared(**other_pictures)) == "unexplained"
    # as many may fall, and others
    assert of_several(compared(**other_pictures, outcomes_differing=0.2)) == "explained: other-norm"
    assert of_several(compared(**other_pictures, outcomes_differing=0.2), reconciled=True) == "explained: other-norm"
    assert of_several(compared(**other_pictures, outcomes_differing=0.3), reconciled=True) == "unexplained"


def test_reconciled_distances_are_equal_within_one_per_cent_where_success_is_the_same() -> None:
    near = {"max_abs_diff": 0.1, "label_agreement": 0.9, "distance_ratio": 1.009}
    assert verdict(compared(**near), minimal=True, reconciled=True) == "equal"
    assert verdict(compared(**near), reconciled=True) == "unexplained"
    assert verdict(compared(**{**near, "distance_ratio": 1.011}), minimal=True, reconciled=True) == "unexplained"
    assert verdict(compared(**near, success_difference=0.1), minimal=True, reconciled=True) == "unexplained"


def test_entries_that_only_one_of_the_two_has_explain_a_difference() -> None:
    pair = compared(max_abs_diff=0.1)
    assert verdict(pair, (ART,)) == verdict(pair, (), (ART,)) == "explained: box-first"
    assert verdict(pair, (ART, FOOLBOX), (FOOLBOX,)) == "explained: box-first"
    assert verdict(pair, (ART,), (FOOLBOX,)) == "explained: box-first + other-norm"
    assert verdict(pair, (ART,), (ART,)) == "unexplained"


def test_after_reconciliation_only_an_entry_that_says_what_remains_explains() -> None:
    pair = compared(max_abs_diff=0.1)
    assert verdict(pair, (ART,), reconciled=True) == "unexplained"
    assert verdict(pair, (ART, FOOLBOX), (FOOLBOX,), reconciled=True) == "explained: other-norm"


@pytest.mark.parametrize("name", ["identical", "equal", "explained", "unexplained"])
def test_every_verdict_has_its_rule(name: str) -> None:
    assert RULES[name]


def test_a_ratio_that_is_not_a_number_is_not_equal() -> None:
    assert verdict(compared(max_abs_diff=0.1, distance_ratio=np.nan), minimal=True) == "unexplained"
