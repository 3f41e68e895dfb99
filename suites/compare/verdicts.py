"""The rules by which two parties' images are called identical, equal, explained or unexplained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sparring.adapters.libraries.ledger import Entry
from sparring.suites.compare.pairs import IMAGES, Compared

Name = Literal["identical", "equal", "explained", "unexplained"]

ROUNDING = 1e-4
"""The distances of images with the same labels are equal when no ratio of two is further from 1."""
RECONCILED = 1e-2
"""The same for attacks that look for the nearest image, once the ledger's differences are taken away: rounding grows
along the many steps of their optimizer."""

FEW = 0.25
"""At most this share of the images is set apart, or counts as what remains of a difference."""

RULES = {
    "identical": "every pixel is the same",
    "equal": f"no pixel with a gradient differs by more than {IMAGES:g}; or, for attacks that look for the nearest "
    f"image, every image has the same label and the distances agree within {ROUNDING:.2%} (reconciled: the same "
    f"success, and distances within {RECONCILED:.0%}); or, for attacks made of several (autoattack, worst-of), the "
    "same images fall",
    "explained": "the ledger has entries for exactly one of the two, and a run without them makes the two equal "
    "(reconciled: entries name what remains, on at most a quarter of the images)",
    "unexplained": "none of these; images whose end hangs on a rounding of float32 don't count (at most a quarter)",
}


@dataclass(frozen=True)
class Verdict:
    """The verdict of one pair, and the ledger's entries behind an explained one."""

    name: Name
    entries: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"explained: {' + '.join(self.entries)}" if self.entries else self.name


def judge(
    compared: Compared,
    habits_a: Sequence[Entry],
    habits_b: Sequence[Entry],
    *,
    minimal: bool,
    reconciled: bool,
    ensemble: bool = False,
) -> Verdict:
    """The verdict of a pair by ``RULES``.

    ``minimal``: the attack looks for the nearest image, so that distances count. (An attack that looks for the worst
    image in a budget always goes to its border.) ``ensemble``: the attack consists of several, any of which may end
    the search of an image, so that only the images that fall count.
    """
    if compared.max_abs_diff == 0 and compared.max_abs_diff_flat == 0:
        return Verdict("identical")
    if compared.max_abs_diff <= IMAGES or (minimal and _same_outcome(compared, reconciled)):
        return Verdict("equal")
    if ensemble and compared.outcomes_differing == 0:
        return Verdict("equal")
    if reconciled:
        few = (compared.outcomes_differing if ensemble else compared.images_differing) <= FEW
        causes = list(dict.fromkeys(entry.id for entry in (*habits_a, *habits_b) if entry.remains and few))
    else:
        causes = differing(habits_a, habits_b)
    return Verdict("explained", tuple(causes)) if causes else Verdict("unexplained")


def differing(a: Sequence[Entry], b: Sequence[Entry]) -> list[str]:
    """The ids of the entries that exactly one of two parties has."""
    return [entry.id for entry in a if entry not in b] + [entry.id for entry in b if entry not in a]


def _same_outcome(compared: Compared, reconciled: bool) -> bool:
    if reconciled:
        same = compared.success_difference == 0 and compared.p_value == 1
        return same and compared.distance_ratio <= 1 + RECONCILED
    return compared.label_agreement == 1 and compared.distance_ratio <= 1 + ROUNDING
