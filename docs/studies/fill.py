"""Fill a page of this folder from a run folder: every table is what the command above it prints.

    python docs/studies/fill.py docs/studies/four-attacks-four-defenses.md runs/four-attacks-four-defenses-small

A page holds, for each table, a comment ``<!-- COMMAND -->`` with ``RUN`` for the run folder, and what it printed up to
``<!-- end -->``. ``COMMAND`` is a `sparring` command line, or ``python benchmarks/...``.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

BLOCK = re.compile(r"<!-- ((?:sparring|python) [^>]*?) -->\n.*?<!-- end -->", re.DOTALL)


def main(page: str, run: str) -> None:
    text = Path(page).read_text("utf-8")
    Path(page).write_text(BLOCK.sub(lambda block: _filled(block[1], run), text), "utf-8")


def _filled(command: str, run: str) -> str:
    words = [run if word == "RUN" else word for word in shlex.split(command)]
    words[:1] = {
        "python": [sys.executable],
        "sparring": [sys.executable, "-c", "from sparring.suites.cli.app import main; main()"],
    }[words[0]]
    print(command)
    told = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "COLUMNS": "120"})
    if told.returncode:
        sys.exit(f"{command}: {told.stderr}")
    printed = told.stdout.strip()
    if not printed.startswith(("|", "#", "**")):
        printed = f"```\n{printed}\n```"
    return f"<!-- {command} -->\n{printed}\n<!-- end -->"


if __name__ == "__main__":
    main(*sys.argv[1:])
