"""A table of a study, and how to write it: on a terminal, as Markdown, CSV and LaTeX."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sparring.adapters.errors import InputError, unknown
from sparring.suites.results.labels import latex

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

FORMATS = ("rich", "md", "csv", "latex")
LOW, HIGH = "_low", "_high"
"""The endings of the two columns that hold an interval."""
MISSING = "–"


@dataclass(frozen=True)
class StudyTable:
    """A table that holds plain numbers; they become texts when it is written.

    ``name`` can be a file's name. The columns ``X_low`` and ``X_high`` of ``frame`` hold the 95 % interval of ``X``.
    ``rates`` names the columns that hold shares, from 0 to 1, or differences of shares, from -1 to 1.
    """

    name: str
    title: str
    caption: str
    frame: pd.DataFrame
    rates: tuple[str, ...] = ()


def headings(table: StudyTable) -> list[str]:
    """The columns to show: all except the ends of intervals."""
    return [str(name) for name in table.frame.columns if not _is_end(table, str(name))]


def texts(table: StudyTable) -> pd.DataFrame:
    """Every cell as text: the interval stands in brackets behind its number, a dash stands for no value."""
    import pandas as pd

    frame = table.frame
    shown = {}
    for name in headings(table):
        column = [_text(value, name in table.rates) for value in frame[name]]
        if name + LOW in frame:
            ends = zip(column, frame[name + LOW], frame[name + HIGH], strict=True)
            column = [_with_interval(text, low, high) for text, low, high in ends]
        shown[name] = column
    return pd.DataFrame(shown, columns=headings(table))


def render(table: StudyTable, form: str) -> str:
    """The table as Markdown or LaTeX, with title and caption, or its plain numbers as CSV. Raises ``InputError``."""
    if form == "csv":
        return table.frame.to_csv(index=False, lineterminator="\n")
    if form == "md":
        shown = texts(table).map(markdown)
        shown.columns = [markdown(heading(name)) for name in shown.columns]
        lines = shown.to_markdown(index=False, disable_numparse=True, colalign=_sides(table))
        return f"**{markdown(table.title)}**\n\n{lines}\n\n{markdown(table.caption)}\n"
    if form == "latex":
        shown = texts(table).map(latex)
        shown.columns = [latex(heading(name)) for name in shown.columns]
        sides = "".join(side[0] for side in _sides(table))
        caption = f"{latex(table.title)}. {latex(table.caption)}"
        return shown.to_latex(
            index=False, escape=False, column_format=sides, caption=caption, label=f"tab:{table.name}"
        )
    raise InputError(unknown("format", form, FORMATS))


def print_rich(table: StudyTable, console: Console) -> None:
    """The table on a terminal."""
    from rich.markup import escape
    from rich.table import Table

    shown = Table(title=escape(table.title), title_justify="left", title_style="bold")
    for name, side in zip(headings(table), _sides(table), strict=True):
        shown.add_column(escape(heading(name)), justify="right" if side == "right" else "left", overflow="fold")
    for _, row in texts(table).iterrows():
        shown.add_row(*(escape(str(text)) for text in row))
    console.print(shown)
    console.print(escape(table.caption), style="dim", highlight=False)


def heading(name: str) -> str:
    """A column's name for readers."""
    return name.replace("_", " ")


def markdown(text: str) -> str:
    """The text with the special characters of Markdown and HTML escaped."""
    plain = str(text).replace("\\", r"\\").replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for sign in "|*_`":
        plain = plain.replace(sign, "\\" + sign)
    return " ".join(plain.split("\n"))


def _is_end(table: StudyTable, name: str) -> bool:
    return any(name.endswith(end) and name.removesuffix(end) in table.frame for end in (LOW, HIGH))


def _sides(table: StudyTable) -> tuple[str, ...]:
    from pandas.api.types import is_numeric_dtype

    numeric = [is_numeric_dtype(table.frame[name]) for name in headings(table)]
    return tuple("right" if number else "left" for number in numeric)


def _text(value: Any, rate: bool) -> str:
    import numpy as np
    import pandas as pd

    if value is None or value is pd.NA or (isinstance(value, float) and value != value):
        return MISSING
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, float):
        if rate:
            return f"{round(value, 3) + 0.0:.3f}"  # no -0.000
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)


def _with_interval(text: str, low: Any, high: Any) -> str:
    missing = text == MISSING or low != low or high != high
    return text if missing else f"{text} [{low:.3f}, {high:.3f}]"
