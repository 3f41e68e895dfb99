"""A heat map for each attack: which parties made the same images, and how far apart the others are."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparring.suites.compare.table import SEVERITY, party, placed_labels

if TYPE_CHECKING:
    import pandas as pd

    from sparring.suites.compare.agreement import Agreement

_COLORS = {
    "identical": "#1a9850",
    "equal": "#91cf60",
    "explained": "#fee08b",
    "unexplained": "#d73027",
    "failed": "#4d4d4d",
}


def draw(agreement: Agreement) -> list[Path]:
    """Draw one SVG for each attack, parameter set and model into ``RUN/agreement/``; returns the files.

    Rows and columns are the parties (library, framework, route). The color is the verdict, the number max |Δ| over the
    pixels that have a gradient.
    """
    folder = agreement.folder / "agreement"
    pairs = agreement.pairs.assign(row=placed_labels(agreement.pairs))
    files: list[Path] = []
    for (label, model), group in pairs.groupby(["row", "model"], sort=False):
        first = group.iloc[0]
        norm = first["norm"] if isinstance(first["norm"], str) else "raw"
        stem = f"{len(files) + 1:02d}-{first['attack']}-{norm}".replace(":", "-")
        title = f"{label}\n{model}, {int(group['n'].max())} images: max |Δ|"
        files.append(_draw(group, title, folder / f"{stem}.svg"))
    return files


def _draw(pairs: pd.DataFrame, title: str, path: Path) -> Path:
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "sparring"  # the same numbers, the same file
    from matplotlib import pyplot
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    names = list(dict.fromkeys([party(row, side) for _, row in pairs.iterrows() for side in "ab"]))
    size = len(names)
    grid: list[list[float]] = [[float("nan")] * size for _ in range(size)]
    figure, axes = pyplot.subplots(figsize=(4 + 0.55 * size, 2.2 + 0.4 * size), layout="constrained")
    for _, row in pairs.iterrows():
        i, j = sorted((names.index(party(row, "a")), names.index(party(row, "b"))))
        grid[j][i] = SEVERITY.index(row["verdict"])
        axes.text(i, j, _number(row), ha="center", va="center", fontsize=7)
    colors = ListedColormap([_COLORS[name] for name in SEVERITY])
    axes.imshow(grid, cmap=colors, vmin=-0.5, vmax=len(SEVERITY) - 0.5, aspect="auto")
    # below the diagonal alone: every pair once
    axes.set_xticks(range(size - 1), names[:-1], rotation=40, ha="right", fontsize=7)
    axes.set_yticks(range(1, size), names[1:], fontsize=7)
    axes.set(xlim=(-0.5, size - 1.5), ylim=(size - 0.5, 0.5))
    figure.suptitle("\n".join(_folded(title)), fontsize=8, x=0.02, ha="left")
    verdicts = [name for name in SEVERITY if (pairs["verdict"] == name).any()]
    axes.legend(handles=[Patch(color=_COLORS[name], label=name) for name in verdicts], fontsize=7, loc="upper right")
    for spine in axes.spines.values():
        spine.set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    return path


def _folded(title: str) -> list[str]:
    return [part for line in title.splitlines() for part in textwrap.wrap(line, 70)]


def _number(row: Any) -> str:
    if not row["n"]:
        return "fails"
    return "0" if row["verdict"] == "identical" else f"{row['max_abs_diff']:.1g}"
