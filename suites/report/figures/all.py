"""All figures of a study, and how to write them."""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from xml.sax.saxutils import escape

from sparring.adapters.errors import InputError, unknown
from sparring.models.storage import write_whole
from sparring.suites.report.figures import bars, confusion, curves, errors, patches, pictures, points
from sparring.suites.report.figures.drawing import DPI, FONT, Figure, style, wrapped
from sparring.suites.report.study import Study

FORMATS = ("svg", "png", "pdf")


def figures(study: Study) -> list[Figure]:
    """Every figure that has something to show, not drawn yet."""
    makers = (
        bars.bars,
        points.overview,
        curves.by_eps,
        errors.errors,
        pictures.pictures,
        patches.patches,
        points.against_time,
        points.published,
        confusion.confusion,
        curves.losses,
    )
    return list(named_once(figure for make in makers for figure in make(study)))


def svg(figure: Figure, *, titled: bool = False) -> str:
    """The figure as an ``<svg>`` element: the same bytes each time, with ids that no other figure of the run has.

    Texts stay texts, the background is transparent, the ink is ``INK``. ``titled`` draws the title into the picture;
    screen readers always get it.
    """
    text = _saved(figure, "svg", titled).decode()
    text = _short(text[text.index("<svg") :])
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>f{zlib.crc32(figure.name.encode()):08x}-", text)
    label = escape(figure.title, {'"': "&quot;"})
    return text.replace("<svg ", f'<svg role="img" aria-label="{label}" font-family="{FONT}" ', 1)


def write(
    study: Study,
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
    every = figures(study)
    files = []
    for number, figure in enumerate(every):
        if progress is not None:
            progress(number, len(every), figure.name)
        for form in formats:
            path = folder / f"{figure.name}.{form}"
            content = svg(figure, titled=True).encode() if form == "svg" else _saved(figure, form, True)
            head = b'<?xml version="1.0" encoding="utf-8"?>\n' if form == "svg" else b""
            write_whole(path, head + content)
            files.append(path)
    return files


def named_once(figures: Iterable[Figure]) -> Iterator[Figure]:
    """The figures, with a number behind a name that an earlier figure has."""
    seen: dict[str, int] = {}
    for figure in figures:
        seen[figure.name] = seen.get(figure.name, 0) + 1
        count = seen[figure.name]
        yield figure if count == 1 else replace(figure, name=f"{figure.name}-{count}")


def _short(text: str) -> str:
    """The same picture in a third of the bytes: without unused ids, with the font set once, and two decimals."""
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
