"""Runs of one suite from many environments as one table: attacks down, environments across, first changes marked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from packaging.version import InvalidVersion, Version

from sparring.adapters.errors import InputError
from sparring.suites.compare.releases import (
    Comparison,
    Key,
    Loaded,
    Package,
    check_comparable,
    compare_rows,
    named,
    other_models,
    suspects,
)
from sparring.suites.results import manifest

FORMATS = ("rich", "md", "csv", "json")
AGES = ("oldest", "previous", "newest")


@dataclass(frozen=True)
class Cell:
    """One row in one environment, and how it differs from the previous environment that has the row."""

    status: str
    robust_accuracy: float | None
    since: str | None = None
    """the environment with which it is compared; None for the first"""
    comparison: Comparison | None = None
    packages: tuple[Package, ...] = ()
    """where the row changed: the packages that can be the cause"""

    def __str__(self) -> str:
        return self.status if self.robust_accuracy is None else f"{self.robust_accuracy:.3f}"

    @property
    def changed(self) -> bool:
        """Whether this environment is the first with this result."""
        return self.comparison is not None and self.comparison.changed


@dataclass(frozen=True)
class Environment:
    """A column: the name of the run's folder, and its releases of the packages that differ and that cells name."""

    name: str
    releases: dict[str, str]

    @property
    def heading(self) -> list[str]:
        """The lines of the heading: the name, and below it the releases that the name doesn't contain.

        Of several packages every release stands there, with its package.
        """
        lines = [release for release in self.releases.values() if release not in self.name]
        if len(self.releases) > 1:
            lines = [f"{package} {release}" for package, release in self.releases.items()]
        return [self.name, *lines]


@dataclass(frozen=True)
class Row:
    """An attack of a library on a model, with a cell for each environment; None where a run has no such row."""

    model: str
    library: str
    attack: str
    cells: tuple[Cell | None, ...]


@dataclass(frozen=True)
class Matrix:
    """The table of the runs of one suite."""

    suite: str
    environments: tuple[Environment, ...]
    rows: tuple[Row, ...]
    models: tuple[str, ...] = ()
    """models that are not one function in all environments"""
    unfinished: tuple[str, ...] = ()
    """environments whose run has no results (yet)"""

    @cached_property
    def changes(self) -> list[tuple[int, int]]:
        """Row and column of each cell in which a result first changed, column by column."""
        every = [(i, j) for j in range(len(self.environments)) for i in range(len(self.rows))]
        return [(i, j) for i, j in every if (cell := self.rows[i].cells[j]) is not None and cell.changed]


def matrices(folder: str | Path) -> tuple[Matrix, ...]:
    """One matrix for each suite with runs in the folder; each subfolder is a run, named after its environment.

    Raises ``InputError`` where there is no run, and where two runs of a suite attacked different images.
    """
    folders = [path.parent for path in sorted(Path(folder).glob("*/manifest.json"))]
    if not folders:
        raise InputError(
            f"{folder}: no runs here: it should hold one run folder for each environment (docs/versions.md)"
        )
    suites: dict[str, list[Path]] = {}
    for path in folders:
        suites.setdefault(str(manifest.read(path)["suite"].get("name")), []).append(path)
    return tuple(_matrix(suite, paths) for suite, paths in suites.items())


def _matrix(suite: str, folders: Sequence[Path]) -> Matrix:
    finished = [path for path in folders if (path / "results.parquet").is_file()]
    runs = [Loaded(path) for path in finished]
    for run in runs[1:]:
        check_comparable(runs[0], run)
    runs, varied = _in_order(runs)
    keys = list(dict.fromkeys(key for run in runs for key in run.rows))
    return Matrix(
        suite=suite,
        environments=tuple(
            Environment(run.folder.name, {name: run.packages[name] for name in varied if name in run.packages})
            for run in runs
        ),
        rows=tuple(_row(runs, key) for key in keys),
        models=tuple(dict.fromkeys(name for a, b in pairwise(runs) for name in other_models(a, b))),
        unfinished=tuple(path.name for path in folders if path not in finished),
    )


def _in_order(runs: Sequence[Loaded]) -> tuple[list[Loaded], list[str]]:
    """The runs, oldest environment first, and the packages that their cells name and that differ.

    Runs are ordered by the words ``oldest``, ``previous`` and ``newest`` in their names, if every name has one; else
    by the releases of these packages.
    """
    own = sorted({name for run in runs for key in run.rows for name in run.own(key)})
    varied = [name for name in own if len({run.packages.get(name) for run in runs}) > 1]
    ages = [_age(run.folder.name) for run in runs]

    def place(run: Loaded) -> Any:
        age = _age(run.folder.name) if None not in ages else None
        return (age or 0, [_version(run.packages.get(name)) for name in varied], run.folder.name)

    return sorted(runs, key=place), varied


def _age(name: str) -> int | None:
    words = re.split(r"[-_.\s]", name)
    return next((i for i, age in enumerate(AGES) if age in words), None)


def _version(release: str | None) -> Version:
    try:
        return Version(release or "0")
    except InvalidVersion:
        return Version("0")


def _row(runs: Sequence[Loaded], key: Key) -> Row:
    home = next(run for run in runs if key in run.rows)
    row = home.rows[key]
    return Row(str(row["model"]), str(row["library"]), home.labels[key], tuple(_cells(runs, key)))


def _cells(runs: Sequence[Loaded], key: Key) -> Iterator[Cell | None]:
    before: Loaded | None = None
    for run in runs:
        if key not in run.rows:
            yield None
            continue
        row = run.rows[key]
        status = str(row["status"])
        value = float(row["robust_accuracy"]) if status == "done" else None
        if before is None:
            yield Cell(status, value)
        else:
            comparison = compare_rows(before, run, key)
            causes = suspects(before, run, key) if comparison.changed else ()
            yield Cell(status, value, before.folder.name, comparison, causes)
        before = run


# --- the texts


def _texts(matrix: Matrix) -> list[list[str]]:
    """The text of each cell, with the number of its footnote where it changed."""
    notes = {place: number for number, place in enumerate(matrix.changes, 1)}
    texts = []
    for i, row in enumerate(matrix.rows):
        line = []
        for j, cell in enumerate(row.cells):
            value = "" if cell is None else str(cell)
            line.append(f"{value} [{notes[i, j]}]" if (i, j) in notes else value)
        texts.append(line)
    return texts


def _footnotes(matrix: Matrix) -> list[str]:
    """For each marked cell what changed and with which packages; then what holds for the whole table."""
    lines = []
    for number, (i, j) in enumerate(matrix.changes, 1):
        row = matrix.rows[i]
        cell = row.cells[j]
        assert cell is not None
        assert cell.comparison is not None
        who = f"{row.model}: {row.library} {row.attack}"
        lines.append(f"[{number}] {named(cell.packages) or 'the same packages'}: {who}: {cell.comparison.says}")
    if not matrix.changes:
        lines.append("no result changed")
    lines += [f"the model {name} is not the same in all: its rows don't compare" for name in matrix.models]
    lines += [f"{name} has no results yet" for name in matrix.unfinished]
    return lines


def _title(matrix: Matrix) -> str:
    varied = dict.fromkeys(name for environment in matrix.environments for name in environment.releases)
    over = f" over releases of {', '.join(varied)}" if varied else ""
    return f"{matrix.suite}: robust accuracy{over}; marked where a result first changed"


def render(tables: Sequence[Matrix], form: str) -> str:
    """The matrices as Markdown, CSV (a line for each cell) or JSON."""
    import pandas as pd

    if form == "json":
        return json.dumps([asdict(matrix) for matrix in tables], indent=2, ensure_ascii=False) + "\n"
    if form == "csv":
        return pd.DataFrame([line for matrix in tables for line in _lines(matrix)]).to_csv(
            index=False, lineterminator="\n"
        )
    return "\n".join(_markdown(matrix) for matrix in tables)


def _markdown(matrix: Matrix) -> str:
    import pandas as pd

    columns = ["model", "library", "attack", *(" ".join(each.heading) for each in matrix.environments)]
    table = [
        [row.model, row.library, row.attack, *texts] for row, texts in zip(matrix.rows, _texts(matrix), strict=True)
    ]
    for i, j in matrix.changes:
        table[i][3 + j] = f"**{table[i][3 + j]}**"
    frame = pd.DataFrame(table, columns=columns).map(lambda text: text.replace("|", r"\|"))
    notes = "".join(f"\n{line}  " for line in _footnotes(matrix))
    # else 0.750 would be read as a number, and shown as 0.75
    return f"{_title(matrix)}\n\n{frame.to_markdown(index=False, disable_numparse=True)}\n{notes}\n"


def _lines(matrix: Matrix) -> Iterator[dict[str, Any]]:
    for row in matrix.rows:
        for environment, cell in zip(matrix.environments, row.cells, strict=True):
            if cell is None:
                continue
            compared = cell.comparison
            yield {
                "suite": matrix.suite,
                "model": row.model,
                "library": row.library,
                "attack": row.attack,
                "environment": environment.name,
                "status": cell.status,
                "robust_accuracy": cell.robust_accuracy,
                "since": cell.since,
                "changed": cell.changed,
                "what": compared.kind if compared else None,
                "how": compared.says if compared else None,
                "p_value": compared.p_value if compared else None,
                "max_delta": compared.max_delta if compared else None,
                "changed_with": "; ".join(map(str, cell.packages)),
            }


def print_rich(tables: Sequence[Matrix], console: Any) -> None:
    """Print the matrices on a terminal, changed cells in bold yellow."""
    from rich.markup import escape
    from rich.table import Table

    for matrix in tables:
        table = Table(title=escape(_title(matrix)), title_justify="left", title_style="bold")
        table.add_column("attack", overflow="fold")
        for environment in matrix.environments:
            table.add_column(escape("\n".join(environment.heading)), justify="right", overflow="fold")
        for i, (row, texts) in enumerate(zip(matrix.rows, _texts(matrix), strict=True)):
            cells = [
                f"[bold yellow]{escape(text)}[/]" if (i, j) in matrix.changes else escape(text)
                for j, text in enumerate(texts)
            ]
            table.add_row(escape(f"{row.model}: {row.library} {row.attack}"), *cells)
        console.print(table)
        for line in _footnotes(matrix):
            console.print(escape(line), highlight=False)
