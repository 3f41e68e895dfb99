"""`sparring table RUN --list` and `--study NAME`: the tables of a study, one by one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sparring.adapters.errors import InputError, unknown
from sparring.suites.report.tables import all as study_tables
from sparring.suites.results import store

if TYPE_CHECKING:
    from rich.console import Console


def listing(run: Path, console: Console) -> None:
    """Print the names and titles of the tables that a run has. Raises ``InputError`` where there are no results."""
    for table in study_tables.tables(run):
        console.print(f"{table.name:28} {table.title}", highlight=False, markup=False, soft_wrap=True)


def show(run: Path, name: str, form: str, out: Path | None, console: Console) -> None:
    """Print one of them (``all``: every one), or write it into ``out``. Raises ``InputError``."""
    if form not in study_tables.FORMATS:
        raise InputError(f"--format: {unknown('format', form, study_tables.FORMATS)}")
    if form == "rich" and out is not None:
        raise InputError("--format rich prints to the terminal; for a file choose md, csv or latex")
    if form == "csv" and name == "all":
        raise InputError("--format csv holds one table: name it (`sparring table RUN --list`)")
    found = study_tables.tables(run) if name == "all" else [study_tables.find(run, name)]
    if form == "rich":
        for table in found:
            study_tables.print_rich(table, console)
        return
    content = "\n".join(study_tables.render(table, form) for table in found)
    if out is not None:
        store.write_whole(out, content)
    else:
        sys.stdout.write(content)
