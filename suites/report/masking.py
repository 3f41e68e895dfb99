"""Masked gradients: where an attack fails because the gradients mislead it, not because the images are safe.

The signs are those of Athalye, Carlini, Wagner 2018 ("Obfuscated gradients give a false sense of security", section
3.1) and of Carlini, Wagner 2017 (section IV, on distillation), for one data set, model and defense at a time:

- ``unaware``: the same gradient attack, with the same parameters, breaks much more when it knows of the defense;
- ``black-box``: an attack that sees no gradients breaks much more than all gradient attacks together;
- ``margin``: CW, DeepFool or APGD on the difference of logits, which follow differences of logits, break much more than
  the iterated attacks that follow the cross-entropy, whose gradient saturates;
- ``temperature``: a gradient attack breaks much more once the logits that it sees are divided by a temperature
  (Carlini, Wagner 2016, "Defensive Distillation is Not Robust to Adversarial Examples", section 4): the same reason;
- ``ensemble``: AutoAttack, or the worst of several attacks, breaks much more than all other gradient attacks together;
- ``one-step``: FGSM breaks much more than the iterated attacks;
- ``vanishing``: a gradient attack gives images back exactly as they were: its gradient is zero there.

But for the first and the last, attacks are compared within one ball, that of a gradient attack with a budget: an
adversarial image counts wherever it came from, if it lies in the ball. "Much" is a difference of at least ``GAP`` whose
paired 95 % interval (Agresti, Min 2005) leaves out zero. An image is broken if any seed broke it. Attacks on pictures
that were damaged before (normalized first) are left out, and balls are those of attacks whose budget is in pixels.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from sparring.adapters.attacks.catalogue import Attack, catalogue
from sparring.adapters.attacks.distances import TOLERANCE
from sparring.suites.report import rows as study_rows
from sparring.suites.report.study import Study
from sparring.suites.results.metrics import paired_difference, wilson
from sparring.suites.results.stored_run import Arrays

if TYPE_CHECKING:
    import pandas as pd

Sign = Literal["unaware", "temperature", "black-box", "margin", "ensemble", "one-step", "vanishing"]
Bools = npt.NDArray[np.bool_]

GAP = 0.1
"""The smallest difference in robust accuracy, or share of images, that is reported."""


@dataclass(frozen=True)
class Finding:
    """One sign of masked gradients.

    ``weak_accuracy`` and ``strong_accuracy``: the share of all n images that are right under the weaker and under the
    stronger attack. ``low`` and ``high``: the 95 % interval of their difference. For ``vanishing``, ``difference`` is
    the share of images that the attack returned unchanged, among those that it had to change.
    """

    dataset: str
    model: str
    defense: str
    sign: Sign
    weak: str
    strong: str
    n: int
    weak_accuracy: float
    strong_accuracy: float
    difference: float
    low: float
    high: float

    @property
    def where(self) -> str:
        """The model, its defense and the data set."""
        defense = "" if self.defense == study_rows.UNDEFENDED else f" with {self.defense}"
        return f"{self.model}{defense} on {self.dataset}"

    @property
    def sentence(self) -> str:
        """The observation, and what follows from it."""
        weak, strong = f"{100 * self.weak_accuracy:.0f} %", f"{100 * self.strong_accuracy:.0f} %"
        interval = f"95 % interval {100 * self.low:.0f} to {100 * self.high:.0f}"
        verb = "leave" if self.weak.count("together") else "leaves"
        points = f"{100 * self.difference:.0f} points of {self.n} images, {interval}"
        if self.sign == "unaware":
            return (
                f"{self.where}: {self.weak} leaves {weak} right while it does not know of the defense and {strong} "
                f"once it does ({points}): that much of the defense is masked gradients, not robustness."
            )
        if self.sign == "temperature":
            return (
                f"{self.where}: {self.strong} leaves {strong} right, {self.weak} with the logits as they are {weak} "
                f"({points}): the cross-entropy of saturated logits has no gradient to follow, and that much of the "
                f"robustness is masked gradients."
            )
        if self.sign == "ensemble":
            return (
                f"{self.where}: {self.strong} leaves {strong} right where {self.weak} {verb} {weak} ({points}): the "
                f"gradients are masked, or these attacks are too weak to measure robustness with."
            )
        if self.sign == "black-box":
            return (
                f"{self.where}: {self.strong}, which sees no gradients, leaves {strong} right where {self.weak} {verb} "
                f"{weak} ({points}): the gradients are masked, or too few steps were made with them."
            )
        if self.sign == "margin":
            return (
                f"{self.where}: {self.strong}, which follows the logits, leaves {strong} right; {self.weak}, which "
                f"follows the cross-entropy, {verb} {weak} ({points}): the cross-entropy's gradient is masked."
            )
        if self.sign == "one-step":
            return (
                f"{self.where}: one step of {self.strong} leaves {strong} right, the many of {self.weak} leave {weak} "
                f"({points}): the gradients mislead, or the steps are too small."
            )
        return (
            f"{self.where}: {self.weak} gave {100 * self.difference:.0f} % of the {self.n} images that were right "
            f"before back exactly as they were ({interval}): their gradient is zero, and says nothing of the defense."
        )


@dataclass(frozen=True)
class Masking:
    """The signs, and the number of comparisons that the run allows."""

    findings: tuple[Finding, ...]
    compared: int


@dataclass(frozen=True)
class _Row:
    label: str
    library: str
    attacker: str
    canonical: Attack | None
    norm: str
    eps: float
    arrays: Arrays
    rest: tuple[str, ...]
    loss: str
    """the loss that the attack follows; empty where it has no choice"""
    variant: str
    pixels: bool
    """whether its budget is in units of [0, 1]"""
    temperature: float

    @property
    def name(self) -> str:
        return f"{self.label} ({self.source})"

    @property
    def source(self) -> str:
        """The library; and the variant, where the attack sees other units or logits than the model's."""
        return self.library if self.pixels and self.temperature == 1 else f"{self.library}, {self.variant}"

    @property
    def margin(self) -> bool:
        """Whether the attack follows differences of logits."""
        return self.canonical is not None and (self.canonical.name in ("cw", "deepfool") or self.loss == "dlr")

    @property
    def ensemble(self) -> bool:
        """Whether it is several attacks, each on the images that the earlier ones did not break."""
        return self.canonical is not None and self.canonical.ensemble

    @property
    def follows(self) -> bool:
        """Whether the attack uses gradients, as a library's own attack may."""
        return self.canonical is None or self.canonical.needs == "gradients"

    @property
    def climbs(self) -> bool:
        """Whether the attack follows the gradient of the loss within a budget."""
        several = self.margin or self.ensemble
        return (
            not several
            and self.canonical is not None
            and (self.canonical.needs, self.canonical.goal) == ("gradients", "budget")
        )

    @property
    def iterated(self) -> bool:
        return self.climbs and self.canonical is not None and "steps" in self.canonical.parameters


def examine(study: Study) -> Masking:
    """Look for every sign in a run."""
    data = study.done
    data = data[data["space"] != study_rows.LOSSY]
    comparisons: list[Finding | None] = []
    for (dataset, model, defense), part in data.groupby(list(study_rows.SUBJECT), sort=False):
        rows = _rows(study, part)
        for finding in (*_unaware(rows), *_divided(rows), *_in_balls(rows), *_vanishing(rows)):
            comparisons.append(finding and Finding(str(dataset), str(model), str(defense), *finding))
    return Masking(tuple(item for item in comparisons if item), len(comparisons))


def sentences(findings: Iterable[Finding]) -> list[str]:
    """One sentence for each model, defense, data set and sign: on the largest difference."""
    largest: dict[tuple[str, str], Finding] = {}
    count: dict[tuple[str, str], int] = {}
    for item in findings:
        key = (item.where, item.sign)
        count[key] = count.get(key, 0) + 1
        if key not in largest or item.difference > largest[key].difference:
            largest[key] = item
    return [item.sentence + _more(count[key] - 1) for key, item in largest.items()]


def _more(others: int) -> str:
    return (
        f" {others} other comparison{'s' * (others > 1)} of this kind say{'s' * (others == 1)} so too."
        if others
        else ""
    )


def _rows(study: Study, part: pd.DataFrame) -> list[_Row]:
    attacks = catalogue()
    rows: list[_Row] = []
    for item in part.to_dict("records"):
        arrays = study.arrays(str(item["cell_id"]))
        if not arrays:
            continue
        norm = item["norm"] if isinstance(item["norm"], str) else ""
        # without the route: an unaware attacker may take the undefended model's own
        rest = tuple(str(item.get(key)) for key in ("attack", "library", "reconcile", "targeted", "space"))
        canonical = attacks.get((str(item["name"]), norm))
        names = (str(item["attack"]), str(item["library"]), str(item["attacker"]))
        params = json.loads(item["params"]) if isinstance(item["params"], str) else {}
        view = (str(item["variant"]), item["space"] == "pixels", float(item["temperature"]))
        loss = str(params.get("loss", ""))
        rows.append(_Row(*names, canonical, norm, float(item["eps"]), arrays, rest, loss, *view))
    return [row for row in rows if np.array_equal(row.arrays["y"], rows[0].arrays["y"])]


_Facts = tuple[Sign, str, str, int, float, float, float, float, float]


def _unaware(rows: list[_Row]) -> Iterator[_Facts | None]:
    """Compare the unaware with the aware attacker, for each attack that both ran."""
    for rest, variant in dict.fromkeys((row.rest, row.variant) for row in rows):
        same = [row for row in rows if (row.rest, row.variant) == (rest, variant) and row.follows]
        blind = [row for row in same if row.attacker == "unaware"]
        seeing = [row for row in same if row.attacker == "aware"]
        if blind and seeing:
            yield _compare("unaware", blind, seeing)


def _divided(rows: list[_Row]) -> Iterator[_Facts | None]:
    """Compare plain with divided logits, for each attack that ran on both."""
    for rest in dict.fromkeys(row.rest for row in rows if row.temperature != 1):
        same = [row for row in rows if row.rest == rest and row.follows and row.attacker != "unaware"]
        plain = [row for row in same if row.temperature == 1]
        divided = [row for row in same if row.temperature != 1]
        if plain and divided:
            yield _compare("temperature", plain, divided)


def _in_balls(rows: list[_Row]) -> Iterator[_Facts | None]:
    """Compare the attacks with each other, within the ball of each attack that climbs."""
    sized = [row for row in rows if row.climbs and row.pixels and row.temperature == 1 and row.eps == row.eps]
    for norm, eps in dict.fromkeys((row.norm, row.eps) for row in sized):
        climbing = [row for row in sized if (row.norm, row.eps) == (norm, eps)]
        iterated = [row for row in climbing if row.iterated]
        single = [row for row in climbing if not row.iterated]
        margin = [row for row in rows if row.margin]
        blind = [
            row for row in rows if row.canonical and row.canonical.needs in ("logits", "decisions") and not row.ensemble
        ]
        for row in blind:
            yield _compare("black-box", [*climbing, *margin], [row], (norm, eps))
        for row in margin if iterated else []:
            yield _compare("margin", iterated, [row], (norm, eps))
        for row in rows:
            if row.ensemble and (row.norm, row.eps) == (norm, eps):
                yield _compare("ensemble", [*climbing, *margin], [row], (norm, eps))
        for row in single if iterated else []:
            yield _compare("one-step", iterated, [row], (norm, eps))


def _vanishing(rows: list[_Row]) -> Iterator[_Facts | None]:
    """Count the images that an attack returned unchanged, though it climbs the classifier's own gradients."""
    for row in rows:
        right = row.arrays["pred_clean"] == row.arrays["y"]
        if row.climbs and row.attacker != "unaware" and right.any():
            n, still = int(right.sum()), int((row.arrays["linf"][right] == 0).sum())
            low, high = wilson(still, n)
            rate = float((row.arrays["pred_adv"] == row.arrays["y"]).mean())
            yield ("vanishing", row.name, "", n, rate, rate, still / n, low, high) if still >= GAP * n else None


def _compare(sign: Sign, weak: list[_Row], strong: list[_Row], ball: tuple[str, float] | None = None) -> _Facts | None:
    survived, survived_stronger = (_survivors(rows, ball) for rows in (weak, strong))
    difference, low, high = paired_difference(survived_stronger, survived)
    if difference < GAP or low <= 0:
        return None
    return (
        sign,
        _names(weak, ball),
        _names(strong, None),
        len(survived),
        float(survived.mean()),
        float(survived_stronger.mean()),
        difference,
        low,
        high,
    )


def _survivors(rows: list[_Row], ball: tuple[str, float] | None) -> Bools:
    """Which images are right before the attacks and under every row, within the ball where there is one; (n,)."""
    return reduce(np.logical_and, (_right(row.arrays, ball) for row in rows))


def _right(arrays: Arrays, ball: tuple[str, float] | None) -> Bools:
    wrong = arrays["pred_adv"] != arrays["y"]
    if ball is None:
        return np.asarray(~wrong)
    norm, eps = ball
    inside = np.asarray(arrays[norm], np.float64) <= eps + TOLERANCE
    return np.asarray((arrays["pred_clean"] == arrays["y"]) & ~(wrong & inside))


def _names(rows: list[_Row], ball: tuple[str, float] | None) -> str:
    """The attacks in words; an attack of several libraries is named once."""
    libraries: dict[str, dict[str, None]] = {}
    for row in rows:
        libraries.setdefault(row.label, {})[row.source] = None
    named = [f"{label} ({', '.join(names)})" for label, names in libraries.items()]
    text = named[0] if len(named) == 1 else f"{', '.join(named[:-1])} and {named[-1]} together"
    return text if ball is None else f"{text} within {ball[0]} {ball[1]:.4g}"
