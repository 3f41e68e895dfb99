"""`sparring table`, `report` and `plot`: what a finished run shows."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console


def table_command(
    run: Annotated[Path, typer.Argument(help="a run folder")],
    form: Annotated[str, typer.Option("--format", help="rich, md, csv, latex, parquet or svg")] = "rich",
    value: Annotated[
        str, typer.Option(help="the column that is shown: robust_accuracy, attack_success_rate, ...")
    ] = "robust_accuracy",
    out: Annotated[Path | None, typer.Option(help="write here instead of printing")] = None,
    study: Annotated[
        str | None, typer.Option(help="another of its tables by name, or `all`: rich, md, csv, latex")
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="name the tables that --study knows, and stop")] = False,
) -> None:
    """Print the library-vs-library table of a run (attacks down, library × framework across), or one of the study's."""
    from sparring.adapters.errors import InputError, unknown
    from sparring.models.storage import write_whole
    from sparring.suites.cli.console import console
    from sparring.suites.report.tables import libraries as tables
    from sparring.suites.results.rows import read_results

    if list_:
        listing(run, console)
        return
    if study is not None:
        show(run, study, form, out, console)
        return
    if form not in tables.FORMATS:
        raise InputError(f"--format: {unknown('format', form, tables.FORMATS)}")
    made = tables.make(read_results(run), value)
    if form == "rich":
        if out is not None:
            raise InputError("--format rich prints to the terminal; for a file choose md, csv, latex or parquet")
        tables.print_rich(made, console)
        return
    content = tables.render(made, form)
    if out is not None:
        write_whole(out, content)
    elif isinstance(content, bytes):
        raise InputError("--format parquet is binary: name a file with --out")
    else:
        sys.stdout.write(content)


def listing(run: Path, console: Console) -> None:
    """Print the names and titles of the tables that a run has. Raises ``InputError`` where there are no results."""
    from sparring.suites.report.study import Study
    from sparring.suites.report.tables import all as study_tables

    for table in study_tables.tables(Study.open(run)):
        console.print(f"{table.name:28} {table.title}", highlight=False, markup=False, soft_wrap=True)


def show(run: Path, name: str, form: str, out: Path | None, console: Console) -> None:
    """Print one of them (``all``: every one), or write it into ``out``. Raises ``InputError``."""
    from sparring.adapters.errors import InputError, unknown
    from sparring.models.storage import write_whole
    from sparring.suites.report.study import Study
    from sparring.suites.report.tables import all as study_tables

    if form not in study_tables.FORMATS:
        raise InputError(f"--format: {unknown('format', form, study_tables.FORMATS)}")
    if form == "rich" and out is not None:
        raise InputError("--format rich prints to the terminal; for a file choose md, csv or latex")
    if form == "csv" and name == "all":
        raise InputError("--format csv holds one table: name it (`sparring table RUN --list`)")
    study = Study.open(run)
    tables = study_tables.tables(study) if name == "all" else [study_tables.find(study, name)]
    if form == "rich":
        for table in tables:
            study_tables.print_rich(table, console)
        return
    content = "\n".join(study_tables.render(table, form) for table in tables)
    if out is not None:
        write_whole(out, content)
    else:
        sys.stdout.write(content)


def report_command(
    run: Annotated[Path, typer.Argument(help="a run folder")],
    out: Annotated[Path | None, typer.Option(help="the page (default: RUN/report.html)", show_default=False)] = None,
) -> None:
    """Write one self-contained HTML page of a run: question, protocol, tables, figures, pictures, versions."""
    from sparring.suites.cli.console import console
    from sparring.suites.report.page import write as report
    from sparring.suites.report.study import Study

    console.print(f"{report.write(Study.open(run), out)}", highlight=False, soft_wrap=True)


def plot_command(
    run: Annotated[Path, typer.Argument(help="a run folder")],
    out: Annotated[Path | None, typer.Option(help="a folder (default: RUN/figures)", show_default=False)] = None,
    form: Annotated[str, typer.Option("--format", help="svg, png, or both: svg,png")] = "svg,png",
) -> None:
    """Write the figures of a run: accuracy by eps, by defense and attack, confusion matrices, accuracy against time."""
    from sparring.suites.report.figures import all as figures
    from sparring.suites.report.study import Study

    begin = time.monotonic()

    def progress(done: int, total: int, name: str) -> None:
        if time.monotonic() - begin > 2:
            print(f"[{done + 1}/{total}] {name}", file=sys.stderr)

    folder = out if out is not None else run / "figures"
    formats = tuple(part.strip() for part in form.split(","))
    files = figures.write(Study.open(run), folder, formats, progress=progress)
    print(f"{len(files)} files in {folder}/" if files else f"{run}: nothing is done here that could be drawn")
