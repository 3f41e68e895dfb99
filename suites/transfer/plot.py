"""A heat map for each attack and library: surrogates down, targets across."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparring.suites.transfer.table import with_labels

if TYPE_CHECKING:
    import pandas as pd

    from sparring.suites.transfer.matrix import Transfer


def draw(transfer: Transfer) -> list[Path]:
    """Draw one SVG for each attack, parameter set and library into ``RUN/transfer/``; returns the files.

    Seeds are averaged. Color and number are the success on the images that both models classify correctly. A solid
    frame marks the diagonal, a dashed one two runtimes of one model. A target's label gives its error on the clean
    images.
    """
    files: list[Path] = []
    rows = with_labels(transfer.rows)
    for (label, library), group in rows.groupby(["row", "library"], sort=False):
        if not (group["status"] == "done").any():
            continue
        name = f"{len(files) + 1:02d}-{group.iloc[0]['attack']}-{library}.svg".replace(":", "-").replace(" ", "-")
        path = transfer.folder / "transfer" / name
        title = f"{label}, {library}: success on the images that surrogate and target classify correctly"
        files.append(_draw(group, title, path))
    return files


def _draw(rows: pd.DataFrame, title: str, path: Path) -> Path:
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "sparring"  # the same numbers, the same file
    from matplotlib import pyplot
    from matplotlib.patches import Rectangle

    surrogates, targets = list(dict.fromkeys(rows["surrogate"])), list(dict.fromkeys(rows["target"]))
    means = rows.groupby(["surrogate", "target"])["success_on_correct"].mean()
    errors = rows.groupby("target")["target_clean_error"].mean()
    same = rows.groupby(["surrogate", "target"])["same_function"].any()
    grid = [[float(means.get((down, across), float("nan"))) for across in targets] for down in surrogates]
    size = (3.4 + 0.62 * len(targets), 2.4 + 0.42 * len(surrogates))
    figure, axes = pyplot.subplots(figsize=size, layout="constrained")
    axes.imshow(grid, cmap="cividis", vmin=0, vmax=1, aspect="auto")
    for i, down in enumerate(surrogates):
        for j, across in enumerate(targets):
            axes.text(j, i, _percent(grid[i][j]), ha="center", va="center", fontsize=8, color=_ink(grid[i][j]))
            if down == across or same[down, across]:
                line = "solid" if down == across else "dashed"
                axes.add_patch(
                    Rectangle((j - 0.46, i - 0.46), 0.92, 0.92, fill=False, edgecolor="#d62728", lw=1.6, linestyle=line)
                )
    axes.set_xticks(range(len(targets)), [f"{name} ({_percent(errors[name])})" for name in targets], fontsize=8)
    axes.tick_params("x", rotation=40)
    for label in axes.get_xticklabels():
        label.set_horizontalalignment("right")
    axes.set_yticks(range(len(surrogates)), surrogates, fontsize=8)
    axes.set_xlabel("target (its error on the clean images)", fontsize=8)
    axes.set_ylabel("surrogate", fontsize=8)
    figure.suptitle("\n".join(textwrap.wrap(title, 64)), fontsize=8, x=0.02, ha="left")
    for spine in axes.spines.values():
        spine.set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    return path


def _percent(rate: Any) -> str:
    return "–" if rate != rate else f"{100 * rate:.0f} %"


def _ink(rate: float) -> str:
    return "black" if rate != rate or rate > 0.55 else "white"
