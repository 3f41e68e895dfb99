"""A study's table as the page shows it: texts, the values to sort by, and the files that it can be saved as."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sparring.suites.report import table as study_text
from sparring.suites.report.table import StudyTable


@dataclass(frozen=True)
class Shown:
    """One cell. ``value`` is what it is sorted by where that is a number: the number with six digits, else empty."""

    text: str
    interval: str
    value: str


@dataclass(frozen=True)
class PageTable:
    """A table of the page. ``files``: the ending of each download -> its content."""

    id: str
    title: str
    caption: str
    columns: tuple[str, ...]
    numeric: tuple[bool, ...]
    rows: tuple[tuple[Shown, ...], ...]
    files: dict[str, str]


def page_table(table: StudyTable) -> PageTable:
    """What the page needs of a table."""
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
        table.name, table.title, table.caption, tuple(study_text.heading(name) for name in names), tuple(numeric),
        tuple(zip(*columns, strict=True)),
        {"csv": study_text.render(table, "csv"), "tex": study_text.render(table, "latex")},
    )  # fmt: skip


def _shown(text: str, value: Any, has_interval: bool, number: bool) -> Shown:
    shown, bracket, rest = text.rpartition(" [") if has_interval else (text, "", "")
    told = "" if not number or value != value or value is None else f"{float(value):.6g}"
    return Shown(shown, f"[{rest}", told) if bracket else Shown(text, "", told)
