"""Strips of images: one picture before and after an attack, with the classifier's predictions."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sparring.suites.report import rows as study_rows
from sparring.suites.report.study import Study

if TYPE_CHECKING:
    import pandas as pd

Image = npt.NDArray[np.float32]
"""float32 (C, H, W) in [0, 1]"""
SIDE = 128
"""Larger pictures are shrunk to this many pixels a side."""
TOP = 3
"""How many of the most probable classes a prediction shows."""


@dataclass(frozen=True)
class Prediction:
    """A class, its probability (None where the run has no logits), and whether it is the true class."""

    name: str
    probability: float | None
    right: bool


@dataclass(frozen=True)
class Strip:
    """One picture under one attack. The three images are PNG data URIs."""

    dataset: str
    attack: str
    library: str
    model: str
    defense: str
    """empty: none"""
    attacker: str
    """``aware``, ``unaware`` or empty"""
    variant: str
    """empty: the only one"""
    label: str
    index: int
    """of the image in the cell"""
    success: bool
    original: str
    adversarial: str
    difference: str
    scale: int
    """the factor by which the difference is enlarged, around mid-gray"""
    linf: float
    l2: float
    before: tuple[Prediction, ...]
    after: tuple[Prediction, ...]


@dataclass(frozen=True)
class Strips:
    """The strips, in the order of the results, and the number of rows without one."""

    strips: tuple[Strip, ...]
    left_out: int


def strips(study: Study, classes: Mapping[str, Sequence[str]], *, each: int = 2, most_bytes: int = 6_000_000) -> Strips:
    """At most ``each`` strips for each data set, variant, attack and library, ``most_bytes`` of images in all.

    A strip shows the first image on which the attack succeeded; without one, the first that was classified correctly.
    Where an attack ran several times (models, defenses, eps), the first row comes first, then the row that differs most
    from those before. ``classes`` maps each data set to its class names; a class without a name shows its number.
    Raises ``InputError`` where stored images can't be read.
    """
    data = study_rows.without_idle_control(study.done)
    chosen = _chosen(data, each)
    drawn: dict[int, Strip] = {}
    spent = 0
    for turn in range(each):  # first one strip of every attack, then the second ones, as far as the bytes last
        for rows in chosen:
            if turn >= len(rows) or spent > most_bytes:
                continue
            position, item = rows[turn]
            strip = _strip(study, item, classes.get(str(item["dataset"]), ()))
            if strip is not None:
                drawn[position] = strip
                spent += sum(map(len, (strip.original, strip.adversarial, strip.difference)))
    return Strips(tuple(drawn[key] for key in sorted(drawn)), len(data) - len(drawn))


def _chosen(data: pd.DataFrame, each: int) -> list[list[tuple[int, dict[str, Any]]]]:
    """The rows to show, with their positions, for each data set, variant, attack, norm and library."""
    groups: dict[tuple[str, ...], list[tuple[int, dict[str, Any]]]] = {}
    for position, record in enumerate(data.to_dict("records")):
        item = {str(name): value for name, value in record.items()}
        key = tuple(str(item[name]) for name in ("dataset", "variant", "name", "norm", "targeted", "library"))
        groups.setdefault(key, []).append((position, item))
    features = ("attack", "model", "defense", "attacker", "route", "reconcile")
    chosen = []
    for rows in groups.values():
        shown = [rows.pop(0)]
        while rows and len(shown) < each:
            distances = [min(sum(str(a[k]) != str(b[k]) for k in features) for _, b in shown) for _, a in rows]
            shown.append(rows.pop(int(np.argmax(distances))))
        chosen.append(shown)
    return chosen


def _strip(study: Study, item: Mapping[str, Any], names: Sequence[str]) -> Strip | None:
    arrays = study.arrays(str(item["cell_id"]))
    if not len(arrays.get("y", ())):
        return None
    right = arrays["pred_clean"] == arrays["y"]
    hit = right & arrays["success"]
    index = int(np.argmax(hit if hit.any() else right))
    x, x_adv = (study.image(str(item["cell_id"]), key, index) for key in ("x", "x_adv"))
    label = int(arrays["y"][index])
    scale = _scale(x_adv - x)
    return Strip(
        str(item["dataset"]),
        str(item["attack"]),
        str(item["library"]),
        str(item["model"]),
        "" if item["defense"] == study_rows.UNDEFENDED else str(item["defense"]),
        str(item["attacker"]),
        str(item["variant"]),
        _name(names, label),
        index,
        bool(hit[index]),
        png(x),
        png(x_adv),
        png(0.5 + scale * (x_adv - x)),
        scale,
        float(arrays["linf"][index]),
        float(arrays["l2"][index]),
        _predictions(arrays, "clean", index, label, names),
        _predictions(arrays, "adv", index, label, names),
    )


def _predictions(
    arrays: Mapping[str, np.ndarray], when: str, index: int, label: int, names: Sequence[str]
) -> tuple[Prediction, ...]:
    """The most probable classes, the most probable first; of a run without logits, the decision alone."""
    if f"logits_{when}" not in arrays:
        decided = int(arrays[f"pred_{when}"][index])
        return (Prediction(_name(names, decided), None, decided == label),)
    from scipy.special import softmax

    logits = np.asarray(arrays[f"logits_{when}"][index], np.float64)
    shares = softmax(logits)
    order = np.argsort(-shares, kind="stable")[:TOP]
    return tuple(Prediction(_name(names, int(i)), float(shares[i]), int(i) == label) for i in order)


def _name(names: Sequence[str], label: int) -> str:
    return str(names[label]) if 0 <= label < len(names) else str(label)


def _scale(change: Image) -> int:
    """The largest of 1, 2, 5, 10, 20, ... by which the difference still fits around mid-gray."""
    room = 0.5001 / max(float(np.abs(change).max()), 1e-9)  # 0.1 of float32 is a little more
    steps = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]
    return max(step for step in steps if step <= max(room, 1))


def png(image: Image) -> str:
    """A data URI of one image (C, H, W), clipped to [0, 1]."""
    from PIL import Image

    levels = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    gray = levels[0] if len(levels) == 1 else np.rint(levels.mean(axis=0)).astype(np.uint8)
    picture = Image.fromarray(levels.transpose(1, 2, 0) if len(levels) == 3 else gray)
    if max(picture.size) > SIDE:
        picture.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
