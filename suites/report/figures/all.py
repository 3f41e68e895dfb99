"""The figures of a study: which there are, how they look, and how they are written."""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

from sparring.adapters.errors import InputError, unknown
from sparring.suites.report.study import open_study
from sparring.suites.results import store

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

FORMATS = ("svg", "png", "pdf")
INK = "#222222"
"""Every text, axis and whisker, and nothing else: a page may put another colour in its place."""
COLOURS = (
    "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b8a800", "#332288", "#882255", "#44aa99",
)  # fmt: skip
"""Told apart by the colour-blind (Okabe, Ito 2008, the yellow darkened; then Tol's muted scheme)."""
PLAIN = "#8a8a8a"
"""The undefended, the clean."""
DPI = 150
_FONT = "DejaVu Sans, Verdana, Geneva, sans-serif"
"""Drawn with the first; the next two are as wide."""


@dataclass(frozen=True)
class Figure:
    """A figure that is drawn when it is asked for. ``name`` is fit for a file."""

    name: str
    title: str
    caption: str
    draw: Callable[[], Drawing]


def figures(run: str | Path) -> list[Figure]:
    """Every figure that has something to show. Raises ``InputError`` where there are no results."""
    from sparring.suites.report.figures import bars, confusion, curves, errors, patches, pictures, points

    study = open_study(run)
    makers = (
        bars.bars, points.overview, curves.by_eps, errors.errors,
        pictures.pictures, patches.patches, points.against_time,
        points.published, confusion.confusion, curves.losses,
    )  # fmt: skip
    return list(named_once(figure for make in makers for figure in make(study)))


def svg(figure: Figure, *, titled: bool = False) -> str:
    """The figure as an ``<svg>`` element, the same each time, with ids that no other figure of the run has.

    Its texts stay texts, its background is transparent, its ink is ``INK``. ``titled`` writes the title into the
    picture; for readers who can't see it, the title is always there.
    """
    text = _saved(figure, "svg", titled).decode()
    text = _short(text[text.index("<svg") :])
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>f{zlib.crc32(figure.name.encode()):08x}-", text)
    label = escape(figure.title, {'"': "&quot;"})
    return text.replace("<svg ", f'<svg role="img" aria-label="{label}" font-family="{_FONT}" ', 1)


def write(
    run: str | Path,
    folder: Path,
    formats: Sequence[str] = ("svg", "png"),
    *,
    progress: Callable[[int, int, str], None] | None = None,
) -> list[Path]:
    """Draw every figure into the folder, with its title; returns the files. Raises ``InputError``."""
    for form in formats:
        if form not in FORMATS:
            raise InputError(f"--format: {unknown('format', form, FORMATS)}")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--out {folder}: this is a file, not a folder")
    every = figures(run)
    files = []
    for number, figure in enumerate(every):
        if progress is not None:
            progress(number, len(every), figure.name)
        for form in formats:
            path = folder / f"{figure.name}.{form}"
            content = svg(figure, titled=True).encode() if form == "svg" else _saved(figure, form, True)
            head = b'<?xml version="1.0" encoding="utf-8"?>\n' if form == "svg" else b""
            store.write_whole(path, head + content)
            files.append(path)
    return files


@contextmanager
def style(name: str = "") -> Iterator[None]:
    """matplotlib's settings while a figure is drawn and saved; ``name`` salts the ids in an SVG."""
    import matplotlib

    matplotlib.use("Agg")
    inked = ("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color")
    settings: Any = dict.fromkeys(inked, INK)
    settings |= {
        "svg.fonttype": "none", "svg.hashsalt": f"sparring {name}", "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"], "font.size": 9,
        "axes.titlesize": 9.5, "axes.titlelocation": "left", "axes.spines.top": False, "axes.spines.right": False,
        "axes.linewidth": 0.7, "axes.axisbelow": True, "axes.facecolor": "none", "figure.facecolor": "none",
        "savefig.facecolor": "none", "grid.color": "#888888", "grid.alpha": 0.3, "grid.linewidth": 0.6,
        "xtick.major.width": 0.7, "ytick.major.width": 0.7, "legend.frameon": False, "legend.fontsize": 8.5,
        "legend.labelcolor": INK, "hatch.linewidth": 0.9, "lines.linewidth": 1.6, "lines.markersize": 5,
        "text.parse_math": False,
    }  # fmt: skip
    with matplotlib.rc_context(settings):
        yield


def blank(width: float, height: float) -> Drawing:
    """An empty figure of so many inches."""
    from matplotlib.figure import Figure as Drawing

    return Drawing(figsize=(width, height), layout="constrained")


def logarithmic(axis: Any) -> None:
    """An x or y axis of powers of ten with plain numbers; with those between where they span little."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    low, high = axis.get_view_interval()
    axis._set_axes_scale("log")
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 50 * low else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def legend_below(figure: Drawing, axes: Iterable[Any]) -> None:
    """One legend for all panels, each label once, under them; the figure grows by it."""
    found: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    if not found:
        return
    labels = [wrapped(name, 60) for name in found]
    longest = max(len(line) for label in labels for line in label.splitlines())
    columns = max(1, min(len(labels), int(figure.get_figwidth() * 12.5 / (longest + 6))))
    rows = -(-len(labels) // columns)
    lines = max(sum(label.count("\n") + 1.3 for label in labels[i : i + rows]) for i in range(0, len(labels), rows))
    figure.set_figheight(figure.get_figheight() + 0.15 * lines + 0.1)
    figure.legend(list(found.values()), labels, loc="outside lower left", ncols=columns)


def wrapped(text: str, width: int) -> str:
    """The text in lines of so many letters; a longer word is broken."""
    import textwrap

    return "\n".join(textwrap.wrap(str(text), width, break_long_words=True)) or str(text)


def safe(*parts: str) -> str:
    """A name fit for a file and an id."""
    said = "-".join(filter(None, (re.sub(r"[^A-Za-z0-9.]+", "-", part).strip("-.") for part in parts)))
    return said.replace(".", "_") or "figure"


def named_once(figures: Iterable[Figure]) -> Iterator[Figure]:
    """The figures, with a number behind names that were there before."""
    seen: dict[str, int] = {}
    for figure in figures:
        seen[figure.name] = seen.get(figure.name, 0) + 1
        count = seen[figure.name]
        yield figure if count == 1 else replace(figure, name=f"{figure.name}-{count}")


def _short(text: str) -> str:
    """The same picture in a third of the letters: no ids that nothing refers to, the font said once, two decimals."""
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', text))
    text = re.sub(r' id="([^"]+)"', lambda match: match[0] if match[1] in used else "", text)
    text = re.sub(r"font-family: [^;\"]*;? ?", "", text)
    text = re.sub(r' transform="rotate\(-0 [^)]*\)"', "", text)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r">\s+<", ">\n<", text)
    text = re.sub(r"<g>\n(<text [^\n]*</text>)\n</g>", r"\1", text)
    text = re.sub(r"<g>\n<g/>\n</g>\n", "", text)
    text = re.sub(r' (d|x|y)="[^"]*"', lambda match: re.sub(r"(\.\d\d)\d+", r"\1", match[0]), text)
    return re.sub(r"[ \n]+(?=[LMQCzZ\"] ?)(?=[^<>]*>)", " ", text)


def _saved(figure: Figure, form: str, titled: bool) -> bytes:
    buffer = io.BytesIO()
    with style(figure.name):
        drawing = figure.draw()
        if titled:
            room = int(drawing.get_figwidth() * 13)
            drawing.suptitle(wrapped(figure.title, room), x=0.01, ha="left", fontsize=11, fontweight="bold")
        if form == "png":
            drawing.savefig(buffer, format=form, dpi=DPI, facecolor="white", metadata={"Software": None})
        elif form == "svg":
            drawing.savefig(buffer, format=form, metadata={"Date": None, "Creator": None})
        else:
            drawing.savefig(buffer, format=form, facecolor="white", metadata={"CreationDate": None})
    return buffer.getvalue()
