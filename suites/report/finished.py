"""A finished run as a program takes it up: its rows, its stored images, its tables, its figures, its page."""

from __future__ import annotations

from pathlib import Path

from sparring.suites.report.figures import all as study_figures
from sparring.suites.report.figures.drawing import Figure
from sparring.suites.report.page import write as page
from sparring.suites.report.study import Study
from sparring.suites.report.table import StudyTable
from sparring.suites.report.tables import all as study_tables


class FinishedRun(Study):
    """A finished run, with all that can be made of it.

    ``frame`` holds the rows, ``manifest`` what the run was made of; ``arrays`` and ``images`` give what is stored of a
    cell by its ``cell_id``.
    """

    def tables(self) -> list[StudyTable]:
        """Every table that has something to say; ``StudyTable.frame`` holds its numbers."""
        return study_tables.tables(self)

    def table(self, name: str) -> StudyTable:
        """One of the tables. Raises ``InputError`` that names them all where there is none of this name."""
        return study_tables.find(self, name)

    def figures(self) -> list[Figure]:
        """Every figure that has something to show; ``Figure.draw()`` draws it with matplotlib."""
        return study_figures.figures(self)

    def write_page(self, path: str | Path | None = None) -> Path:
        """Write the page of the run, by default ``report.html`` in its folder, and return its path."""
        return page.write(self, path)


def read(folder: str | Path) -> FinishedRun:
    """Open the folder of a finished run. Raises ``InputError`` where its results are missing or damaged."""
    return FinishedRun.open(folder)
