"""`sparring plot`: the figures of a run as files."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from sparring.suites.report.figures import all as figures


def run(folder: Path, out: Path | None, formats: tuple[str, ...]) -> int:
    """Write every figure of a run into ``out`` (RUN/figures when absent) and say where; the exit code.

    Raises ``InputError`` for a folder without results and for an unknown format.
    """
    begin = time.monotonic()

    def progress(done: int, total: int, name: str) -> None:
        if time.monotonic() - begin > 2:
            print(f"[{done + 1}/{total}] {name}", file=sys.stderr)

    there = out if out is not None else folder / "figures"
    files = figures.write(folder, there, formats, progress=progress)
    print(f"{len(files)} files in {there}/" if files else f"{folder}: nothing is done here that could be drawn")
    return 0
