"""What the terminal shows while a run goes on: bars where there is a terminal, lines where there is none."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from sparring.suites.workers.reporter import Reporter

if TYPE_CHECKING:
    from sparring.suites.plan.plan import Planned

_WIDE = 200  # a table that is piped into a file should not be folded at 80 columns
console = Console(width=None if sys.stdout.isatty() else _WIDE)
_errors = Console(stderr=True)


class LiveReporter(Reporter):
    """Bars on a terminal; elsewhere one line a stage and a finished cell, and a sign of life every ten seconds."""

    def __init__(self) -> None:
        self._live = _errors.is_terminal
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TimeElapsedColumn(),
            console=_errors,
            transient=True,
            disable=not self._live,
        )
        self._tasks: dict[str, int] = {}
        self._lock = threading.Lock()
        self._last = time.monotonic()
        self._cells = ""

    def __enter__(self) -> LiveReporter:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def stage(self, text: str) -> None:
        self._say(text)

    def cells(self, done: int, total: int) -> None:
        self._cells = f"[{done}/{total}] "
        if total:
            self._bar("cells", done, total, "")

    def progress(self, what: str, done: int, total: int, unit: str) -> None:
        self._bar(what, done, total, unit)
        with self._lock:
            quiet = time.monotonic() - self._last > 10
        if quiet and not self._live:
            self._say(f"{self._cells}{what}: {done} of {total} {unit}")

    def finished(self, planned: Planned, status: str, reason: str) -> None:
        with self._lock:
            task = self._tasks.pop(planned.title, None)
        if task is not None:
            self._bars.remove_task(task)  # type: ignore[arg-type]
        why = f": {reason}" if reason else ""
        self._say(f"{status:6} {planned.title}{why}")

    def _bar(self, what: str, done: int, total: int, unit: str) -> None:
        with self._lock:
            if what not in self._tasks:
                self._tasks[what] = self._bars.add_task(escape(what), total=total, unit=unit)
            task = self._tasks[what]
        self._bars.update(task, completed=done, total=total, unit=unit)  # type: ignore[arg-type]
        if done >= total and what != "cells":
            with self._lock:
                self._tasks.pop(what, None)
            self._bars.remove_task(task)  # type: ignore[arg-type]

    def _say(self, text: str) -> None:
        with self._lock:
            self._last = time.monotonic()
        _errors.print(escape(text), highlight=False, soft_wrap=True)
