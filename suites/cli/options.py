"""The arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SuiteArgument = Annotated[str, typer.Argument(help="a suite file, or the name of a study (`sparring list studies`)")]
OutOption = Annotated[
    Path | None, typer.Option("--out", help="the run folder (default: runs/NAME)", show_default=False)
]
ProfileOption = Annotated[str | None, typer.Option("--profile", help="a profile of the suite: smoke, small or paper")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="override a key: data.samples=20, attacks.0.eps=[0.1]; repeatable")
]
