"""What a run tells while it goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sparring.suites.plan.plan import Planned


class Reporter:
    """Hears what a run is doing; this one keeps silent."""

    def stage(self, text: str) -> None:
        """A new stage of the run, in words."""

    def cells(self, done: int, total: int) -> None:
        """How many of the cells to compute are finished."""

    def progress(self, what: str, done: int, total: int, unit: str) -> None:
        """How far one piece of work is (a training, a cell); called again with the same ``what``."""

    def finished(self, planned: Planned, status: str, reason: str) -> None:
        """A cell has a result."""
