"""Figures of adversarial patches: the patches, pictures with a patch, and success by size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from sparring.suites.report.figures.drawing import COLORS, MARKS, Figure, blank, grid, legend_below, safe, wrapped
from sparring.suites.report.rows import UNDEFENDED, mean_over_seeds
from sparring.suites.report.strips import SIDE
from sparring.suites.report.study import Study, class_names
from sparring.suites.report.table import HIGH, LOW
from sparring.suites.report.tables.patches import targeted
from sparring.suites.results.metrics import softmax

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure as Drawing

SETTING = ["dataset", "model", "defense", "attacker", "variant", "library", "route", "how"]
"""The columns that say for what, and with what, a patch was made; a figure shows its targets and sizes."""
EXAMPLES = 3
"""The number of pictures for each target."""


def patches(study: Study) -> Iterator[Figure]:
    """For each model and library the patches and pictures with them; for each data set their success by size."""
    rows = targeted(study)
    if rows.empty:
        return
    names = class_names(study)
    for key, group in rows.groupby(SETTING, sort=False):
        dataset, words = str(key[0]), _words(key, rows)
        yield Figure(
            safe("patches", dataset, *words),
            f"Patches: {', '.join(words)}",
            "Each as large as the others here; below it the share of images of other classes that it leads to its "
            "target. First seed.",
            partial(_draw_patches, study, group),
        )
        yield Figure(
            safe("patched", dataset, *words),
            f"Patches of {group['size'].max()} pixels in pictures: {', '.join(words)}",
            "The first pictures of other classes that it leads to its target (of too few, others too), with what the "
            "network says of them and how sure it is; before: what it said without the patch. First seed.",
            partial(_draw_examples, study, group, names.get(dataset, [])),
        )
    if rows["size"].nunique() > 1:
        for name, group in rows.groupby("dataset", sort=False):
            yield Figure(
                safe("patch-size", str(name)),
                f"Success of patches by size: {name}",
                "Share of the images of other classes that are led to the target. Bars: 95 % interval; means over "
                "seeds.",
                partial(_draw_sizes, group, rows),
            )


def _words(key: Sequence[Any], rows: pd.DataFrame) -> list[str]:
    """The model, the library, and of the other columns the values that differ within the run."""
    setting = dict(zip(SETTING, map(str, key), strict=True))
    same = rows[(rows["model"] == setting["model"]) & (rows["library"] == setting["library"])]
    more = [setting[name] for name in ("defense", "attacker", "variant", "route", "how") if same[name].nunique() > 1]
    return [setting["model"], setting["library"], *(word for word in more if word not in ("", UNDEFENDED))]


def _first(group: pd.DataFrame, target: str, size: int) -> dict[str, Any] | None:
    matches = group[(group["target"] == target) & (group["size"] == size)].sort_values("seed", kind="stable")
    return {str(name): value for name, value in matches.iloc[0].items()} if len(matches) else None


def _draw_patches(study: Study, group: pd.DataFrame) -> Drawing:
    targets, sizes = list(dict.fromkeys(group["target"])), sorted(group["size"].unique())
    figure = blank(max(3.2, 1.35 * len(sizes) + 1.2), 1.6 * len(targets))
    axes = figure.subplots(len(targets), len(sizes), squeeze=False)
    for line, target in zip(axes, targets, strict=True):
        for axis, size in zip(line, sizes, strict=True):
            row = _first(group, target, size)
            arrays = study.arrays(str(row["cell_id"])) if row else {}
            if row is None or "extra_patch" not in arrays:
                axis.set_axis_off()
                continue
            axis.set(xticks=[], yticks=[])
            axis.spines[["top", "right"]].set_visible(True)  # a white patch on a white page
            _show(axis, arrays["extra_patch"], arrays.get("extra_mask"))
            axis.set_title(f"{wrapped(target, 18)}\n{size} px: {100 * row['target_top1']:.0f} %", fontsize=8)
    return figure


def _draw_examples(study: Study, group: pd.DataFrame, names: Sequence[str]) -> Drawing:
    targets, size = list(dict.fromkeys(group["target"])), group["size"].max()
    figure = blank(2.1 * EXAMPLES, 2.35 * len(targets))
    axes = figure.subplots(len(targets), EXAMPLES, squeeze=False)
    for line, target in zip(axes, targets, strict=True):
        for axis in line:
            axis.set_axis_off()
        row = _first(group, target, size)
        arrays = study.arrays(str(row["cell_id"])) if row else {}
        if row is None or "logits_adv" not in arrays:
            continue
        others = np.flatnonzero(arrays["y"] != arrays["target"])
        hits = arrays["pred_adv"][others] == arrays["target"][others]
        chosen = [*others[hits], *others[~hits]][:EXAMPLES]
        for axis, place in zip(line, chosen, strict=False):
            _show(axis, study.image(str(row["cell_id"]), "x_adv", int(place)))
            after, before = (_prediction(arrays[f"logits_{when}"][place], names) for when in ("adv", "clean"))
            hit = arrays["pred_adv"][place] == arrays["target"][place]
            axis.set_title(
                f"{wrapped(after, 26)}\nbefore: {wrapped(before, 26)}",
                fontsize=7,
                fontweight="bold" if hit else "normal",
            )
    return figure


def _prediction(logits: np.ndarray, names: Sequence[str]) -> str:
    shares = softmax(logits[None])[0]
    best = int(shares.argmax())
    return f"{names[best] if best < len(names) else best}, {100 * shares[best]:.0f}\u00a0%"


def _show(axis: Any, image: np.ndarray, mask: np.ndarray | None = None) -> None:
    """Show an image (C, H, W) in [0, 1], transparent where the mask is false, at most ``SIDE`` pixels a side or so."""
    levels = np.clip(image, 0, 1)
    colors = levels if len(levels) == 3 else levels[:1].repeat(3, 0)
    seen = np.ones(levels.shape[1:]) if mask is None else np.asarray(mask, float)
    whole = np.concatenate([colors, seen[None]])
    step = -(-max(levels.shape[1:]) // SIDE)
    height, width = (side // step for side in levels.shape[1:])
    shrunk = whole[:, : height * step, : width * step].reshape(4, height, step, width, step).mean(axis=(2, 4))
    axis.imshow(shrunk.transpose(1, 2, 0), interpolation="nearest")


def _draw_sizes(group: pd.DataFrame, rows: pd.DataFrame) -> Drawing:
    panels = list(group.groupby(SETTING, sort=False))
    targets = list(dict.fromkeys(group["target"]))
    figure, axes = grid(len(panels), "led to the target")
    ends = [end for end in ("", LOW, HIGH) if f"target_top1{end}" in group]
    for axis, (key, mine) in zip(axes, panels, strict=False):
        for i, target in enumerate(targets):
            part = mine[mine["target"] == target]
            if part.empty:
                continue
            means = mean_over_seeds(part, ["size"], [f"target_top1{end}" for end in ends]).sort_values("size")
            value, *interval = (means[f"target_top1{end}"].to_numpy(float) for end in ends)
            bars = np.abs(np.stack(interval) - value) if len(interval) == 2 else None
            axis.errorbar(
                means["size"],
                value,
                yerr=bars,
                marker=MARKS[i % len(MARKS)],
                color=COLORS[i % len(COLORS)],
                label=target,
                markersize=4.5,
                elinewidth=0.8,
                capsize=2,
                alpha=0.9,
            )
        axis.set_title(wrapped(", ".join(_words(key, rows)), 34))
        axis.set_ylim(0, 1.03)
        axis.set_xticks(sorted(group["size"].unique()))
        axis.set_xlabel("side of the patch, pixels")
        axis.grid()
    legend_below(figure, axes[: len(panels)])
    return figure
