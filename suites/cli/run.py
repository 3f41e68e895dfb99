"""`sparring run`: run a suite, or show with `--dry-run` what that would take."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from sparring.suites.cli.options import OutOption, ProfileOption, SetOption, SuiteArgument

if TYPE_CHECKING:
    from rich.table import Table

    from sparring.models.data.datasets import Dataset
    from sparring.suites.plan.file import Suite
    from sparring.suites.runner.run import Outlook


def run_command(
    suite: SuiteArgument,
    out: OutOption = None,
    profile: ProfileOption = None,
    set_: SetOption = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="cells computed at once, each in a process of its own (default: 2, on one core or a GPU 1)",
            show_default=False,
        ),
    ] = None,
    retry: Annotated[
        str | None, typer.Option(help="`failed`: compute those again that failed or ran out of time")
    ] = None,
    limit_seconds: Annotated[
        float | None, typer.Option(min=0.001, help="end an attack after so many seconds; the row then says `timeout`")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the plan and stop")] = False,
) -> None:
    """Run a suite. Started again, it computes just what is missing.

    Exit code 0: every cell is done or can't be; 1: a cell failed; 2: bad input; 3: cells are left without a result,
    because a disk was full, a process was killed or the like; 130: stopped.
    """
    from sparring.adapters.errors import InputError
    from sparring.suites.cli.console import LiveReporter, console
    from sparring.suites.report.tables import libraries as tables
    from sparring.suites.runner.run import Unfinished, command, look_ahead, run, usual_workers
    from sparring.suites.transfer import table as transfer_table

    if retry not in (None, "failed"):
        raise InputError(f"--retry {retry}: the only choice is `failed`")
    if dry_run:
        _print_plan(look_ahead(suite, out=out, profile=profile, overrides=set_ or (), retry_failed=retry is not None))
        return
    again = command(suite, out, profile, set_ or ())
    try:
        with LiveReporter() as reporter:
            done = run(
                suite,
                out=out,
                profile=profile,
                overrides=set_ or (),
                workers=workers or usual_workers(device),
                retry_failed=retry is not None,
                limit_seconds=limit_seconds,
                device=device,
                reporter=reporter,
            )
    except Unfinished as stopped:
        print(f"sparring: {stopped}. To go on: {again}", file=sys.stderr)
        sys.exit(stopped.exit_code)
    tables.print_rich(tables.make(done.frame), console)
    if done.transfer is not None:
        transfer_table.print_rich(done.transfer, console)
    console.print(
        f"{len(done.frame)} rows, {done.computed} cells computed now; everything is in {done.folder}/", highlight=False
    )
    if done.left:
        why = next(iter(done.left.values()))
        print(f"sparring: {len(done.left)} cells have no result ({why}). To compute them: {again}", file=sys.stderr)
    if done.failed:
        print(f"sparring: {done.failed} cells failed; to try them again: {again} --retry failed", file=sys.stderr)
    console.print(f"Next: sparring table {done.folder} --format md", highlight=False)
    if suite == "quickstart":
        console.print(
            "Or your own suite: sparring run my-suite.yaml (README, section 'Your own suite')", highlight=False
        )
    sys.exit(done.exit_code)


def _print_plan(outlook: Outlook) -> None:
    from sparring.suites.cli.console import console

    for part, data in outlook.parts:
        console.print(_plan_of(part, data, outlook))
    for row in outlook.planned:
        state = "can't run" if row.unsupported else "stored" if row.cell.id in outlook.stored else "to compute"
        eps = f" eps={row.asked.eps:.4g}" if row.asked.eps is not None else ""
        why = f": {row.unsupported}" if row.unsupported else ""
        text = f"{row.cell.id}  {state:10}  {row.model}: {row.cell.library} {row.asked.name}{eps} seed={row.cell.seed}"
        text += f" {row.cell.attacker}" if row.cell.attacker else ""
        text += f" on {row.cell.dataset}" if len(outlook.parts) > 1 else ""
        console.print(f"{text} {row.cell.route}{why}", highlight=False, markup=False, soft_wrap=True)
    console.print(f"Results would be in {outlook.folder}/", highlight=False)


def _plan_of(part: Suite, data: Dataset, outlook: Outlook) -> Table:
    from rich.markup import escape
    from rich.table import Table

    from sparring.suites.plan.plan import count

    table = Table(title=f"{part.name}: {len(data.x)} images of {data.name}", title_justify="left")
    for header in ("model", "framework", "rows", "stored", "can't run", "to compute", "first"):
        table.add_column(header)
    for spec in part.models:
        first = outlook.to_prepare.get((data.name, spec.name), "ready")
        if spec not in part.attacked:
            what = "target" if part.transfer else "not attacked itself"
            table.add_row(escape(spec.name), spec.runtime, *["–"] * 4, escape(f"{first} ({what})"))
            continue
        if first != "ready":
            table.add_row(escape(spec.name), spec.runtime, str(count(part, spec)), "?", "?", "?", escape(first))
            continue
        mine = [row for row in outlook.planned if row.model == spec.name and row.cell.dataset == data.name]
        stored = sum(row.cell.id in outlook.stored and row.unsupported is None for row in mine)
        cannot = sum(row.unsupported is not None for row in mine)
        table.add_row(
            escape(spec.name),
            mine[0].cell.model.framework if mine else spec.runtime,
            str(len(mine)),
            str(stored),
            str(cannot),
            str(len(mine) - stored - cannot),
            "ready",
        )
    return table
