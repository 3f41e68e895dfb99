"""What all figures share: colors, matplotlib's settings, blank figures, axes, legends, names."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

INK = "#222222"
"""The color of every text, axis and whisker, and of nothing else: a page replaces it with its own."""
COLORS = (
    *("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b8a800"),  # Okabe, Ito 2008, darker yellow
    *("#332288", "#882255", "#44aa99"),  # Tol's muted scheme
)
"""Color-blind readers can distinguish them."""
MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")
PLAIN = "#8a8a8a"
"""The color of undefended models and clean images."""
DPI = 150
FONT = "DejaVu Sans, Verdana, Geneva, sans-serif"
"""The first is drawn with; the next two are as wide."""


@dataclass(frozen=True)
class Figure:
    """A figure that ``draw`` draws. ``name`` can be a file's name."""

    name: str
    title: str
    caption: str
    draw: Callable[[], Drawing]


@contextmanager
def style(name: str = "") -> Iterator[None]:
    """matplotlib's settings while a figure is drawn and saved; ``name`` salts the ids in an SVG."""
    import matplotlib

    matplotlib.use("Agg")
    inked = ("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color")
    settings: Any = dict.fromkeys(inked, INK)
    settings |= {
        "svg.fonttype": "none",
        "svg.hashsalt": f"sparring {name}",
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],
        "font.size": 9,
        "axes.titlesize": 9.5,
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.7,
        "axes.axisbelow": True,
        "axes.facecolor": "none",
        "figure.facecolor": "none",
        "savefig.facecolor": "none",
        "grid.color": "#888888",
        "grid.alpha": 0.3,
        "grid.linewidth": 0.6,
        "xtick.major.width": 0.7,
        "ytick.major.width": 0.7,
        "legend.frameon": False,
        "legend.fontsize": 8.5,
        "legend.labelcolor": INK,
        "hatch.linewidth": 0.9,
        "lines.linewidth": 1.6,
        "lines.markersize": 5,
        "text.parse_math": False,
    }
    with matplotlib.rc_context(settings):
        yield


def blank(width: float, height: float) -> Drawing:
    """An empty figure; width and height are in inches."""
    from matplotlib.figure import Figure as Drawing

    return Drawing(figsize=(width, height), layout="constrained")


def grid(count: int, ylabel: str, width: float = 3.2, height: float = 2.5) -> tuple[Drawing, Any]:
    """A figure with ``count`` panels, three in a row, and its axes; panels that are left over are invisible."""
    across = min(3, count)
    down = math.ceil(count / across)
    figure = blank(max(5.0, width * across), height * down)
    axes = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True).ravel()
    for axis in axes[::across]:
        axis.set_ylabel(ylabel)
    for axis in axes[count:]:
        axis.set_visible(False)
    for axis in axes[:count]:  # shared axes show numbers in the last row alone, where a panel may be missing
        axis.tick_params(labelbottom=True)
    return figure, axes


def logarithmic(axis: Any) -> None:
    """Make an x or y axis logarithmic, with plain numbers at powers of ten, and at 2 and 5 where the range is small."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    low, high = axis.get_view_interval()
    axis._set_axes_scale("log")
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 50 * low else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def legend_below(figure: Drawing, axes: Iterable[Any]) -> None:
    """Put one legend for all panels below them, each label once; the figure grows by its height."""
    handles: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if not handles:
        return
    labels = [wrapped(name, 60) for name in handles]
    longest = max(len(line) for label in labels for line in label.splitlines())
    columns = max(1, min(len(labels), int(figure.get_figwidth() * 12.5 / (longest + 6))))
    rows = -(-len(labels) // columns)
    lines = max(sum(label.count("\n") + 1.3 for label in labels[i : i + rows]) for i in range(0, len(labels), rows))
    figure.set_figheight(figure.get_figheight() + 0.15 * lines + 0.1)
    figure.legend(list(handles.values()), labels, loc="outside lower left", ncols=columns)


def wrapped(text: str, width: int) -> str:
    """The text in lines of at most ``width`` letters; a longer word is broken."""
    import textwrap

    return "\n".join(textwrap.wrap(str(text), width, break_long_words=True)) or str(text)


def safe(*parts: str) -> str:
    """A name that can be a file's name and an id."""
    name = "-".join(filter(None, (re.sub(r"[^A-Za-z0-9.]+", "-", part).strip("-.") for part in parts)))
    return name.replace(".", "_") or "figure"
