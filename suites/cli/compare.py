"""`sparring diff`, `matrix` and `agree`: releases beside releases, libraries beside libraries."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from sparring.suites.cli.options import OutOption, ProfileOption, SetOption


def diff_command(
    before: Annotated[Path, typer.Argument(help="a run folder")],
    after: Annotated[Path, typer.Argument(help="a run folder of the same suite, from another environment")],
    form: Annotated[str, typer.Option("--format", help="rich, md or json")] = "rich",
) -> None:
    """Compare two runs of one suite: the rows that changed, and the packages that changed with them.

    Exit code 0: nothing changed but rounding; 1: a row changed; 2: bad input.
    """
    from sparring.adapters.errors import InputError, unknown
    from sparring.suites.cli.console import console
    from sparring.suites.compare import releases

    if form not in releases.FORMATS:
        raise InputError(f"--format: {unknown('format', form, releases.FORMATS)}")
    changes = releases.diff(before, after)
    if form == "rich":
        releases.print_rich(changes, console)
    else:
        sys.stdout.write(releases.render(changes, form))
    sys.exit(1 if changes.changed else 0)


def matrix_command(
    folder: Annotated[Path, typer.Argument(help="holds one run folder for each environment, named after it")],
    form: Annotated[str, typer.Option("--format", help="rich, md, csv or json")] = "rich",
) -> None:
    """Print attacks × environments, and mark where a result first changed, and with which package and release."""
    from sparring.adapters.errors import InputError, unknown
    from sparring.suites.cli.console import console
    from sparring.suites.compare import release_matrix

    if form not in release_matrix.FORMATS:
        raise InputError(f"--format: {unknown('format', form, release_matrix.FORMATS)}")
    matrices = release_matrix.matrices(folder)
    if form == "rich":
        release_matrix.print_rich(matrices, console)
    else:
        sys.stdout.write(release_matrix.render(matrices, form))


def agree_command(
    source: Annotated[str, typer.Argument(help="a suite file, the name of a study, or a run folder")],
    out: OutOption = None,
    profile: ProfileOption = None,
    set_: SetOption = None,
    reconcile: Annotated[
        bool, typer.Option("--reconcile", help="run with the ledger's differences taken away, as far as they can be")
    ] = False,
    verify: Annotated[
        bool,
        typer.Option(help="run explained attacks once more without their causes: what still differs is unexplained"),
    ] = True,
    workers: Annotated[int, typer.Option(min=1, help="cells computed at once, each in a process of its own")] = 1,
    limit_seconds: Annotated[float | None, typer.Option(min=0.001, help="end an attack after so many seconds")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    form: Annotated[str, typer.Option("--format", help="rich, md, csv or json")] = "rich",
) -> None:
    """Say of every pair of libraries whether their attack is the same, and if not, why.

    Runs a suite with the referee (the papers' own definitions) beside its libraries, or takes a finished run.
    Exit code 0: every pair is identical, equal or explained; 1: one is unexplained or failed, or an entry of the ledger
    is stale; 2: bad input; 3: a full disk or the like; 130: stopped.
    """
    from sparring.adapters.errors import InputError, unknown
    from sparring.suites.cli.console import LiveReporter, console
    from sparring.suites.compare import table as agreement_table
    from sparring.suites.compare.agree import agree
    from sparring.suites.runner.run import Unfinished

    if form not in agreement_table.FORMATS:
        raise InputError(f"--format: {unknown('format', form, agreement_table.FORMATS)}")
    try:
        with LiveReporter() as reporter:
            agreement = agree(
                source,
                out=out,
                profile=profile,
                overrides=set_ or (),
                reconcile=reconcile,
                verify=verify,
                workers=workers,
                limit_seconds=limit_seconds,
                device=device,
                reporter=reporter,
            )
    except Unfinished as stopped:
        print(f"sparring: {stopped}. The same command goes on from here", file=sys.stderr)
        sys.exit(stopped.exit_code)
    if form == "rich":
        agreement_table.print_rich(agreement, console)
        console.print(
            f"Everything is in {agreement.folder}/: agreement.csv, agreement.json, agreement/*.svg", highlight=False
        )
    else:
        sys.stdout.write(agreement_table.render(agreement, form))
    sys.exit(1 if agreement.disagreements or agreement.stale else 0)
