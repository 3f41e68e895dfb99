"""A table as the page shows it: its texts, the values to sort by, and the files to save it as."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sparring.suites.report import table as study_text
from sparring.suites.report.table import StudyTable


@dataclass(frozen=True)
class Shown:
    """One cell. ``value`` is the number to sort by, with six digits; empty where the cell holds no number."""

    text: str
    interval: str
    value: str


@dataclass(frozen=True)
class PageTable:
    """A table of the page. ``files`` maps the ending of each download to its content."""

    id: str
    title: str
    caption: str
    columns: tuple[str, ...]
    numeric: tuple[bool, ...]
    rows: tuple[tuple[Shown, ...], ...]
    files: dict[str, str]


def page_table(table: StudyTable) -> PageTable:
    """The table in the form that the page needs."""
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    names = study_text.headings(table)
    texts = study_text.texts(table)
    numeric = [is_numeric_dtype(table.frame[name]) and not is_bool_dtype(table.frame[name]) for name in names]
    columns = [
        [
            _shown(text, value, name + study_text.LOW in table.frame, number)
            for text, value in zip(texts[name], table.frame[name], strict=True)
        ]
        for name, number in zip(names, numeric, strict=True)
    ]
    return PageTable(
        table.name,
        table.title,
        table.caption,
        tuple(study_text.heading(name) for name in names),
        tuple(numeric),
        tuple(zip(*columns, strict=True)),
        {"csv": study_text.render(table, "csv"), "tex": study_text.render(table, "latex")},
    )


def _shown(text: str, value: Any, has_interval: bool, number: bool) -> Shown:
    shown, bracket, rest = text.rpartition(" [") if has_interval else (text, "", "")
    key = "" if not number or value != value or value is None else f"{float(value):.6g}"
    return Shown(shown, f"[{rest}", key) if bracket else Shown(text, "", key)
