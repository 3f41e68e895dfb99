"""Single pictures, clean and attacked, with bars of the five classes that the model finds most probable."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from sparring.suites.report.figures.drawing import COLORS, INK, PLAIN, Figure, blank, safe, wrapped
from sparring.suites.report.rows import LOSSY, UNDEFENDED
from sparring.suites.report.strips import SIDE
from sparring.suites.report.study import Study, class_names
from sparring.suites.results.metrics import TOP, softmax
from sparring.suites.results.stored_run import Arrays

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

    from sparring.suites.report.strips import Image

ATTACK, EPS = "fgsm", 0.02
"""The attack that is shown, at the eps nearest to this. A run without it shows its first attack with an eps."""


def pictures(study: Study) -> Iterator[Figure]:
    """The first picture of each class in the suite's ``pictures``, for each model, defense and variant."""
    wanted = [str(name) for name in study.manifest["suite"].get("pictures") or ()]
    if not wanted:
        return
    names = class_names(study)
    rows = study.attacks
    rows = rows[
        rows["eps"].notna()
        & (rows["space"] != LOSSY)
        & (rows["attacker"] != "unaware")
        & ~rows["targeted"].astype(bool)
    ]
    for key, group in rows.groupby(["dataset", "model", "defense", "variant"], sort=False):
        dataset, model, defense, variant = map(str, key)
        shown = group[group["name"] == (ATTACK if (group["name"] == ATTACK).any() else group["name"].iloc[0])]
        row = shown.iloc[int(np.argmin(np.abs(shown["eps"].to_numpy() - EPS)))].to_dict()
        arrays = study.arrays(str(row["cell_id"]))
        places = _first_places(wanted, names.get(dataset, []), arrays)
        if not places or "logits_adv" not in arrays:
            continue
        words = [model, *([defense] if defense != UNDEFENDED else []), *([variant] if variant else [])]
        yield Figure(
            safe("pictures", dataset, *words),
            f"Pictures before and after {row['name']}, eps {row['eps']:.4g}: {', '.join(words)}",
            f"Bars: the {TOP} most probable classes and their probabilities, the true one in gray. {row['library']}'s "
            f"{row['name']}, first seed.",
            partial(_draw, study, str(row["cell_id"]), places, names.get(dataset, []), arrays),
        )


def _first_places(wanted: Sequence[str], names: Sequence[str], arrays: Arrays) -> dict[str, int]:
    """The place of the first image of each wanted class; classes without an image are left out."""
    places = {}
    for name in wanted:
        if name in names and (mine := np.flatnonzero(arrays["y"] == names.index(name))).size:
            places[name] = int(mine[0])
    return places


def _draw(study: Study, cell: str, places: Mapping[str, int], names: Sequence[str], arrays: Arrays) -> Drawing:
    figure = blank(10.5, 1.75 * len(places) + 0.2)
    axes = figure.subplots(len(places), 4, squeeze=False, width_ratios=(1, 1.5, 1, 1.5))
    for line, (name, place) in zip(axes, places.items(), strict=True):
        for side, key, when, word in ((0, "x", "clean", name), (2, "x_adv", "adv", "attacked")):
            _picture(line[side], study.image(cell, key, place))
            line[side].set_title(wrapped(word, 24), fontsize=8.5)
            _bars(line[side + 1], softmax(arrays[f"logits_{when}"][[place]])[0], names, int(arrays["y"][place]))
    return figure


def _picture(axis: Any, image: Image) -> None:
    levels = np.clip(image, 0, 1)
    step = -(-max(levels.shape[1:]) // (2 * SIDE))  # a page is not the place to look at single pixels
    shown = levels[:, ::step, ::step].transpose(1, 2, 0)
    axis.imshow(shown[..., 0] if shown.shape[2] == 1 else shown, cmap="gray", vmin=0, vmax=1)
    axis.set_axis_off()


def _bars(axis: Any, shares: np.ndarray, names: Sequence[str], true: int) -> None:
    best = np.argsort(-shares, kind="stable")[:TOP]
    axis.barh(range(len(best)), shares[best], color=[PLAIN if each == true else COLORS[0] for each in best], height=0.7)
    for place, each in enumerate(best):
        axis.text(min(shares[each] + 0.02, 0.82), place, f"{shares[each]:.3f}", va="center", fontsize=7, color=INK)
    labels = [wrapped(names[each] if each < len(names) else str(each), 20).split("\n")[0] for each in best]
    axis.set_yticks(range(len(best)), labels, fontsize=7.5)
    axis.invert_yaxis()
    axis.set_xlim(0, 1)
    axis.set_xticks([0, 0.5, 1], ["0", "0.5", "1"], fontsize=7)
    axis.tick_params(axis="y", length=0)
