"""What happens to pictures, and to the numbers, when a script normalizes pictures before it attacks them.

A library that expects images in [0, 1] clamps to that range. Pictures that were standardized first, (x - mean) / std,
have about half of their values below 0 and many above 1. The clamp loses these values before the attack's first step,
and no attack can bring them back. A run with a variant of the space ``normalised-first`` shows how much is lost. All
of it is read from stored cells; those of the control ``none`` show what the clamp alone does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparring.adapters.attacks.catalogue import catalogue
from sparring.suites.report.rows import CONTROL, KEYS, LOSSY, mean_over_seeds
from sparring.suites.report.strips import png
from sparring.suites.report.study import Study
from sparring.suites.report.table import HIGH, LOW, StudyTable
from sparring.suites.results import store

if TYPE_CHECKING:
    import pandas as pd

SUBJECT = ["dataset", "model", "defense", "attacker"]
CHANGED = 1e-5
"""A value that differs by more was clamped: standardizing and undoing it moves a value by a rounding error alone."""
SHOWN = 3
"""How many pictures the page shows of each data set and model."""
CLOSE = 0.02
"""Attacks whose accuracies differ by at most this much tie."""


@dataclass(frozen=True)
class Damage:
    """What the clamp alone does to the pictures of one data set, as one model normalizes them.

    ``clamped``: the share of pixel values that lie outside [0, 1] after standardizing. ``mean`` and ``contrast``: mean
    and standard deviation of the values of a picture, in [0, 1], averaged over the pictures, before and after.
    """

    dataset: str
    model: str
    defense: str
    attacker: str
    variant: str
    images: int
    clamped: float
    mean: tuple[float, float]
    contrast: tuple[float, float]
    accuracy: tuple[float, float]
    """on the clean pictures, and after the clamp alone"""
    interval: tuple[float, float]
    """the 95 % interval of the accuracy after the clamp"""

    @property
    def sentence(self) -> str:
        """The damage in words."""
        low, high = map(_percent, self.interval)
        return (
            f"{self.model} on {self.dataset} ({self.images} pictures): {_percent(self.clamped)} of the pixel values "
            f"lie outside [0, 1] once they are normalized, and are clamped. The mean value goes from "
            f"{self.mean[0]:.2f} to {self.mean[1]:.2f}, the contrast within a picture (standard deviation) from "
            f"{self.contrast[0]:.2f} to {self.contrast[1]:.2f}. Before any attack, accuracy goes from "
            f"{_percent(self.accuracy[0])} to {_percent(self.accuracy[1])} (95 % interval {low} to {high})."
        )


@dataclass(frozen=True)
class Shown:
    """One picture in its stages, each with a word and a PNG data URI."""

    title: str
    stages: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Section:
    """The content of the page's section."""

    variants: tuple[str, ...]
    damages: tuple[Damage, ...]
    oddities: tuple[str, ...]
    pictures: tuple[Shown, ...]


def section(study: Study, *, pictures: bool = True) -> Section | None:
    """The section of a run; None for a run without such a variant."""
    lossy = study.done[study.done["space"] == LOSSY]
    if lossy.empty:
        return None
    shown = tuple(_pictures(study)) if pictures else ()
    return Section(tuple(dict.fromkeys(lossy["variant"])), tuple(damages(study)), tuple(oddities(study)), shown)


def damages(study: Study) -> Iterator[Damage]:
    """The damage for each data set, model, defense and attacker, from the stored images of the control ``none``."""
    rows = study.done
    rows = rows[(rows["space"] == LOSSY) & (rows["name"] == CONTROL)]
    for key, group in rows.groupby([*SUBJECT, "variant"], sort=False):
        row = group.iloc[0]
        cell = str(row["cell_id"])
        clamped = _clamped(study.folder, cell)
        before, after = (_looks(study.folder, cell, name) for name in ("x", "x_adv"))
        interval = [float(row.get(f"robust_accuracy{end}", np.nan)) for end in (LOW, HIGH)]
        dataset, model, defense, attacker, variant = map(str, key)
        yield Damage(
            dataset,
            model,
            defense,
            attacker,
            variant,
            int(row["n"]),
            clamped,
            (before[0], after[0]),
            (before[1], after[1]),
            (float(row["clean_accuracy"]), float(row["robust_accuracy"])),
            (interval[0], interval[1]),
        )


@cache
def _clamped(folder: Path, cell: str) -> float:
    """The share of values that the control changed."""
    pairs = zip(*(store.read_image_blocks(folder, cell, name) for name in ("x", "x_adv")), strict=True)
    shares = [
        (np.abs(after - before) > CHANGED).mean() for x, x_adv in pairs for before, after in zip(x, x_adv, strict=True)
    ]
    return float(np.mean(shares))


@cache
def _looks(folder: Path, cell: str, key: str) -> tuple[float, float]:
    """Mean and contrast (standard deviation within a picture), averaged over the stored images."""
    statistics = [
        (image.mean(dtype=np.float64), image.std(dtype=np.float64))
        for block in store.read_image_blocks(folder, cell, key)
        for image in block
    ]
    mean, contrast = np.mean(statistics, axis=0)
    return float(mean), float(contrast)


def compared(study: Study) -> pd.DataFrame:
    """A row for each attack and library that ran both ways: the accuracies ``corrected`` and ``as_published``.

    ``clamp_alone`` is the accuracy without the attack. ``contrast`` is that of the pictures after the attack as
    published; next to ``contrast_before`` and ``contrast_clamped`` it shows whether the library clamped at all.
    """
    keys = [*(key for key in KEYS if key not in ("variant", "route")), "name", "norm", "eps"]
    rows = study.attacks
    rows = rows[(rows["temperature"] == 1) & ~rows["targeted"].astype(bool)]
    sides = {}
    for name, space in (("corrected", "pixels"), ("as_published", LOSSY)):
        side = rows[rows["space"] == space]
        side = side[side["variant"] == side["variant"].iloc[0]] if len(side) else side  # the first of several
        sides[name] = mean_over_seeds(side, keys, ["robust_accuracy", "clean_accuracy"]).rename(
            columns={"robust_accuracy": name}
        )
        sides[name]["cell"] = list(side.groupby(keys, sort=False, dropna=False)["cell_id"].first())
    both = sides["corrected"].drop(columns="cell").merge(sides["as_published"].drop(columns="clean_accuracy"), on=keys)
    alone = {(each.dataset, each.model, each.defense, each.attacker): each for each in damages(study)}
    subjects = zip(*(both[name].astype(str) for name in SUBJECT), strict=True)
    own = [alone.get((dataset, model, defense, attacker)) for dataset, model, defense, attacker in subjects]
    both["clamp_alone"] = [each.accuracy[1] if each else np.nan for each in own]
    both["contrast_before"] = [each.contrast[0] if each else np.nan for each in own]
    both["contrast_clamped"] = [each.contrast[1] if each else np.nan for each in own]
    both["contrast"] = [_looks(study.folder, str(cell), "x_adv")[1] for cell in both["cell"]]
    return both.drop(columns="cell")


def normalized_first_tables(study: Study) -> Iterator[StudyTable]:
    """The tables ``normalised-first`` (each attack both ways) and ``normalised-first-pictures`` (the clamp alone)."""
    import pandas as pd

    if not (study.done["space"] == LOSSY).any():
        return
    frame = compared(study)
    frame["difference"] = frame["as_published"] - frame["corrected"]
    frame = frame.drop(columns=["name", "norm", "eps", "contrast_before", "contrast_clamped"])
    frame = frame.rename(columns={"clean_accuracy": "clean"})
    last = ["clean", "clamp_alone", "as_published", "corrected", "difference", "contrast"]
    yield StudyTable(
        "normalised-first",
        "Normalized first, and corrected",
        "Accuracy on the clean pictures, after the clamp alone, and after the attack: on pictures that were normalized "
        "before the attack (as published) and on the pictures themselves (corrected); difference: as published minus "
        "corrected; contrast: of the pictures as published, after the attack. A library that does not clamp in this "
        "attack leaves them theirs.",
        frame[[*(name for name in frame if name not in last), *last]],
        ("clean", "clamp_alone", "as_published", "corrected", "difference"),
    )
    lines = [
        {
            **{key: getattr(each, key) for key in (*SUBJECT, "variant")},
            "images": each.images,
            "clamped": each.clamped,
            "mean_before": each.mean[0],
            "mean_after": each.mean[1],
            "contrast_before": each.contrast[0],
            "contrast_after": each.contrast[1],
            "clean": each.accuracy[0],
            "after_clamp": each.accuracy[1],
            f"after_clamp{LOW}": each.interval[0],
            f"after_clamp{HIGH}": each.interval[1],
        }
        for each in damages(study)
    ]
    yield StudyTable(
        "normalised-first-pictures",
        "What normalizing first does to the pictures",
        "Clamped: share of the pixel values that lie outside [0, 1] once they are standardized; mean and contrast: "
        "mean and standard deviation of the values of a picture, in [0, 1]; accuracy on clean pictures, and after the "
        "clamp alone.",
        pd.DataFrame(lines),
        ("clamped", "clean", "after_clamp"),
    )


def oddities(study: Study) -> Iterator[str]:
    """Sentences on three oddities, for each model and library: whether each occurs in both ways.

    The oddities: one step beats many; an attack without gradients raises accuracy; attacks of different kinds tie.
    """
    attacks = catalogue()
    frame = compared(study)
    frame["kind"] = [_kind(attacks.get((name, norm))) for name, norm in zip(frame["name"], frame["norm"], strict=True)]
    for key, group in frame.groupby([*SUBJECT, "library"], sort=False):
        dataset, model, defense, _, library = map(str, key)
        where = f"{model}{'' if defense == 'none' else f' with {defense}'} on {dataset}, {library}"
        yield from (f"{where}: {sentence}" for sentence in (*_one_step(group), *_raised(group), *_ties(group)))


def _kind(attack: Any) -> str:
    if attack is None:
        return "other"
    if attack.needs != "gradients":
        return "blind"
    return "other" if attack.ensemble else "many" if "steps" in attack.parameters else "one"


def _one_step(group: pd.DataFrame) -> Iterator[str]:
    """The strongest one-step attack as published, against the strongest iterated attack with at least its budget."""
    single = group[group["kind"] == "one"]
    if single.empty:
        return
    one = single.iloc[int(single["as_published"].to_numpy().argmin())]
    many = group[group["kind"] == "many"]
    many = many[many["eps"].isna() | ((many["norm"] == one["norm"]) & (many["eps"] >= one["eps"]))]
    if many.empty:
        return
    sides = ("as_published", "corrected")
    best = {side: many.iloc[int(many[side].to_numpy().argmin())] for side in sides}
    odd = [bool(one[side] < best[side][side]) for side in sides]
    sentence = {
        (True, False): "one step beats many when normalized first, and not in the corrected run",
        (True, True): "one step beats many in both runs",
        (False, True): "one step beats many in the corrected run alone",
        (False, False): "one step beats many in neither run",
    }[odd[0], odd[1]]
    words = [
        f"{one['attack']} leaves {_percent(one[side])} right, {best[side]['attack']} {_percent(best[side][side])}"
        for side in sides
    ]
    yield f"{sentence}. Normalized first, {words[0]}; corrected, {words[1]}."


def _raised(group: pd.DataFrame) -> Iterator[str]:
    """Attacks without gradients that leave more images right than the clamp alone does."""
    for row in group[group["kind"] == "blind"].to_dict("records"):
        after, clamp, clean = row["as_published"], row["clamp_alone"], row["clean_accuracy"]
        if not after > clamp:  # false for NaN as well
            continue
        near = abs(row["contrast"] - row["contrast_before"]) < abs(row["contrast"] - row["contrast_clamped"])
        why = (
            f"its pictures keep their contrast ({row['contrast']:.2f}; clamped {row['contrast_clamped']:.2f}): it does "
            "not clamp, and spares them the damage"
            if near
            else f"the contrast of its pictures is {row['contrast']:.2f} (clamped {row['contrast_clamped']:.2f})"
        )
        than = f", and more than the {_percent(clean)} of the clean pictures" if after > clean else ""
        yield (
            f"{row['attack']}, which sees no gradients, leaves {_percent(after)} right when normalized first, more "
            f"than the {_percent(clamp)} after the clamp alone{than}; {why}. Corrected, it leaves "
            f"{_percent(row['corrected'])}."
        )


def _ties(group: pd.DataFrame) -> Iterator[str]:
    """The largest group of attacks whose accuracies lie within ``CLOSE`` of each other."""
    if len(group) < 3:
        return
    groups = []
    for side in ("as_published", "corrected"):
        values = group[side].to_numpy()
        near = [np.flatnonzero((values >= low) & (values <= low + CLOSE + 1e-9)) for low in values]
        best = max(near, key=len)
        groups.append((len(best), [str(group["attack"].iloc[i]) for i in best], float(values[best].min())))
    (count, names, low), (other, _, other_low) = groups
    if count < 2:
        yield f"no two attacks tie when normalized first (within {_percent(CLOSE)})."
        return
    yield (
        f"normalized first, {count} of {len(group)} attacks end within {_percent(CLOSE)} of each other, from "
        f"{_percent(low)} on ({', '.join(names)}): what decides is the damage before, not the attack. Corrected, the "
        f"largest such group has {other} (from {_percent(other_low)} on)."
    )


def _pictures(study: Study) -> Iterator[Shown]:
    """For each model the first correctly classified pictures: clean, clamped, and attacked both ways."""
    rows = study.done
    for key, group in rows.groupby(SUBJECT, sort=False):
        lossy, fair = group[group["space"] == LOSSY], group[(group["space"] == "pixels") & (group["temperature"] == 1)]
        clamp, attacks = lossy[lossy["name"] == CONTROL], lossy[lossy["name"] != CONTROL]
        pairs = attacks.merge(fair, on=["attack", "library", "seed"], suffixes=("", "_fair"))
        if pairs.empty:
            continue
        pair = pairs.iloc[0]
        cells = [
            *[("clamped alone", str(cell)) for cell in clamp["cell_id"][:1]],
            (f"{pair['variant']}: {pair['attack']}", str(pair["cell_id"])),
            (f"{pair['variant_fair']}: {pair['attack']}", str(pair["cell_id_fair"])),
        ]
        arrays = study.arrays(cells[0][1])
        right = np.flatnonzero(arrays["pred_clean"] == arrays["y"])[:SHOWN]
        dataset, model = str(key[0]), str(key[1])
        for place in map(int, right):
            stages = [("as it is", png(study.image(cells[0][1], "x", place)))]
            for word, cell in cells:
                stored = study.arrays(cell)
                verdict = "right" if stored["pred_adv"][place] == stored["y"][place] else "wrong"
                stages.append((f"{word} ({verdict})", png(study.image(cell, "x_adv", place))))
            yield Shown(f"{model} on {dataset}, image {place} ({pair['library']})", tuple(stages))


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share == 0 or share >= 0.1 else f"{100 * share:.1f} %"
