"""`sparring transfer`: a run of a suite whose images other models judge."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparring.suites.cli.options import OutOption, ProfileOption, SetOption, SuiteArgument

if TYPE_CHECKING:
    from sparring.suites.plan.file import Suite
    from sparring.suites.runner.run import Run


def transfer_command(
    suite: SuiteArgument,
    out: OutOption = None,
    profile: ProfileOption = None,
    set_: SetOption = None,
    surrogates: Annotated[
        str | None, typer.Option(help="models of the suite that are attacked: A,B (default: the suite's, or all)")
    ] = None,
    targets: Annotated[
        str | None, typer.Option(help="models that judge the images: A,B (default: the suite's, or all)")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="cells computed at once, each in a process of its own")] = 1,
    limit_seconds: Annotated[float | None, typer.Option(min=0.001, help="end an attack after so many seconds")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    form: Annotated[str, typer.Option("--format", help="rich, md, csv, json or latex")] = "rich",
    value: Annotated[
        str, typer.Option(help="the column that is shown: success_on_correct, success_all, success_8bit, ...")
    ] = "success_on_correct",
) -> None:
    """Attack the surrogates of a suite and judge the images on every target: the transfer matrix.

    Adversarial images are made once per surrogate; with another target, only that one is asked. Exit code 0: every cell
    is done or can't be; 1: a cell failed; 2: bad input; 3: cells are left without a result; 130: stopped.
    """
    from sparring.adapters.errors import InputError, unknown
    from sparring.suites.cli.console import LiveReporter, console
    from sparring.suites.runner.run import Unfinished
    from sparring.suites.transfer import table as transfer_table

    if form not in transfer_table.FORMATS:
        raise InputError(f"--format: {unknown('format', form, transfer_table.FORMATS)}")
    if value not in transfer_table.VALUES:
        raise InputError(f"--value: {unknown('value', value, transfer_table.VALUES)}")
    try:
        with LiveReporter() as reporter:
            done = transfer(
                suite,
                surrogates=surrogates,
                targets=targets,
                out=out,
                profile=profile,
                overrides=set_ or (),
                workers=workers,
                limit_seconds=limit_seconds,
                device=device,
                reporter=reporter,
            )
    except Unfinished as stopped:
        print(f"sparring: {stopped}. The same command goes on from here", file=sys.stderr)
        sys.exit(stopped.exit_code)
    assert done.transfer is not None
    if form == "rich":
        transfer_table.print_rich(done.transfer, console, value)
        console.print(f"Everything is in {done.folder}/: transfer.csv, transfer/*.csv, transfer/*.svg", highlight=False)
    else:
        sys.stdout.write(transfer_table.render(done.transfer, form, value))
    sys.exit(done.exit_code)


def transfer(
    source: str | Path | Mapping[str, Any],
    *,
    surrogates: str | None = None,
    targets: str | None = None,
    **options: Any,
) -> Run:
    """``run`` with a transfer matrix, also for a suite that asks for none: then all models are surrogates and targets.

    ``surrogates`` and ``targets`` are names joined by commas, instead of the suite's. Raises as ``run`` does.
    """
    from sparring.adapters.errors import InputError, unknown
    from sparring.suites.plan.keys import TransferSpec
    from sparring.suites.runner.run import run

    chosen = {
        key: tuple(name.strip() for name in names.split(","))
        for key, names in (("surrogates", surrogates), ("targets", targets))
        if names is not None
    }

    def amend(suite: Suite) -> Suite:
        models = [model.name for model in suite.models]
        for key, names in chosen.items():
            for name in names:
                if name not in models:
                    raise InputError(f"--{key}: {unknown('model', name, models)}")
        spec = (suite.transfer or TransferSpec.model_validate({})).model_copy(update=chosen)
        return suite.model_copy(update={"transfer": spec})

    return run(source, amend=amend, **options)
