"""The command line. Heavy modules are imported inside the commands: `sparring --help` answers at once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from sparring.models.data.datasets import Dataset
    from sparring.suites.plan.file import Suite
    from sparring.suites.runner.run import Outlook

app = typer.Typer(
    name="sparring",
    help="One classifier in the ring with every adversarial attack library at once: ART, Foolbox, torchattacks.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

SuiteArgument = Annotated[str, typer.Argument(help="a suite file, or the name of a study (`sparring list studies`)")]
OutOption = Annotated[
    Path | None, typer.Option("--out", help="the run folder (default: runs/NAME)", show_default=False)
]
ProfileOption = Annotated[str | None, typer.Option("--profile", help="a profile of the suite: smoke, small or paper")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="override a key: data.samples=20, attacks.0.eps=[0.1]; repeatable")
]


def main() -> None:
    """Run the command line; bad input is one message and exit code 2."""
    from sparring.adapters.errors import SparringError

    try:
        app()
    except SparringError as error:
        print(f"sparring: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        sys.exit(0)  # `sparring list attacks | head`


@app.command("run")
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

    Exit code 0: every cell is done or can't be; 1: a cell failed; 2: bad input; 130: stopped.
    """
    from sparring.adapters.errors import InputError
    from sparring.suites.cli.console import LiveReporter, console
    from sparring.suites.report.tables import libraries as tables
    from sparring.suites.runner.run import Interrupted, command, look_ahead, run, usual_workers
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
                suite, out=out, profile=profile, overrides=set_ or (), workers=workers or usual_workers(device),
                retry_failed=retry is not None, limit_seconds=limit_seconds, device=device, reporter=reporter,
            )  # fmt: skip
    except Interrupted as stopped:
        print(f"sparring: {stopped}. To go on: {again}", file=sys.stderr)
        sys.exit(130)
    tables.print_rich(tables.make(done.frame), console)
    if done.transfer is not None:
        transfer_table.print_rich(done.transfer, console)
    console.print(
        f"{len(done.frame)} rows, {done.computed} cells computed now; everything is in {done.folder}/", highlight=False
    )
    if done.failed:
        print(f"sparring: {done.failed} cells failed; to try them again: {again} --retry failed", file=sys.stderr)
    console.print(f"Next: sparring table {done.folder} --format md", highlight=False)
    if suite == "quickstart":
        console.print(
            "Or your own suite: sparring run my-suite.yaml (README, section 'Your own suite')", highlight=False
        )
    sys.exit(1 if done.failed else 0)


@app.command("table")
def table_command(
    run: Annotated[Path, typer.Argument(help="a run folder")],
    form: Annotated[str, typer.Option("--format", help="rich, md, csv, latex, parquet or svg")] = "rich",
    value: Annotated[
        str, typer.Option(help="the column that is shown: robust_accuracy, attack_success_rate, ...")
    ] = "robust_accuracy",
    out: Annotated[Path | None, typer.Option(help="write here instead of printing")] = None,
    study: Annotated[
        str | None, typer.Option(help="another of its tables by name, or `all`: rich, md, csv, latex")
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="name the tables that --study knows, and stop")] = False,
) -> None:
    """Print the library-vs-library table of a run (attacks down, library × framework across), or one of the study's."""
    from sparring.adapters.errors import InputError, unknown
    from sparring.suites.cli import results
    from sparring.suites.cli.console import console
    from sparring.suites.report.tables import libraries as tables
    from sparring.suites.results import store
    from sparring.suites.results.rows import read_results

    if list_:
        results.listing(run, console)
        return
    if study is not None:
        results.show(run, study, form, out, console)
        return
    if form not in tables.FORMATS:
        raise InputError(f"--format: {unknown('format', form, tables.FORMATS)}")
    made = tables.make(read_results(run), value)
    if form == "rich":
        if out is not None:
            raise InputError("--format rich prints to the terminal; for a file choose md, csv, latex or parquet")
        tables.print_rich(made, console)
        return
    content = tables.render(made, form)
    if out is not None:
        store.write_whole(out, content)
    elif isinstance(content, bytes):
        raise InputError("--format parquet is binary: name a file with --out")
    else:
        sys.stdout.write(content)


@app.command("report")
def report_command(
    run: Annotated[Path, typer.Argument(help="a run folder")],
    out: Annotated[Path | None, typer.Option(help="the page (default: RUN/report.html)", show_default=False)] = None,
) -> None:
    """Write one self-contained HTML page of a run: question, protocol, tables, figures, pictures, versions."""
    from sparring.suites.cli.console import console
    from sparring.suites.report.page import write as report

    console.print(f"{report.write(run, out)}", highlight=False, soft_wrap=True)


@app.command("plot")
def plot_command(
    run: Annotated[Path, typer.Argument(help="a run folder")],
    out: Annotated[Path | None, typer.Option(help="a folder (default: RUN/figures)", show_default=False)] = None,
    form: Annotated[str, typer.Option("--format", help="svg, png, or both: svg,png")] = "svg,png",
) -> None:
    """Write the figures of a run: accuracy by eps, by defense and attack, confusion matrices, accuracy against time."""
    from sparring.suites import plot_command as plots

    sys.exit(plots.run(run, out, tuple(part.strip() for part in form.split(","))))


@app.command("diff")
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
    found = releases.diff(before, after)
    if form == "rich":
        releases.print_rich(found, console)
    else:
        sys.stdout.write(releases.render(found, form))
    sys.exit(1 if found.changed else 0)


@app.command("matrix")
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
    found = release_matrix.matrices(folder)
    if form == "rich":
        release_matrix.print_rich(found, console)
    else:
        sys.stdout.write(release_matrix.render(found, form))


@app.command("agree")
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
    is stale; 2: bad input; 130: stopped.
    """
    from sparring.adapters.errors import InputError, unknown
    from sparring.suites.cli.console import LiveReporter, console
    from sparring.suites.compare import table as agreement_table
    from sparring.suites.compare.agree import agree
    from sparring.suites.runner.run import Interrupted

    if form not in agreement_table.FORMATS:
        raise InputError(f"--format: {unknown('format', form, agreement_table.FORMATS)}")
    try:
        with LiveReporter() as reporter:
            found = agree(
                source, out=out, profile=profile, overrides=set_ or (), reconcile=reconcile, verify=verify,
                workers=workers,
                limit_seconds=limit_seconds, device=device, reporter=reporter,
            )  # fmt: skip
    except Interrupted as stopped:
        print(f"sparring: {stopped}. The same command goes on from here", file=sys.stderr)
        sys.exit(130)
    if form == "rich":
        agreement_table.print_rich(found, console)
        console.print(
            f"Everything is in {found.folder}/: agreement.csv, agreement.json, agreement/*.svg", highlight=False
        )
    else:
        sys.stdout.write(agreement_table.render(found, form))
    sys.exit(1 if found.disagreements or found.stale else 0)


@app.command("transfer")
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
    is done or can't be; 1: a cell failed; 2: bad input; 130: stopped.
    """
    from sparring.adapters.errors import InputError, unknown
    from sparring.suites.cli.console import LiveReporter, console
    from sparring.suites.cli.transfer import transfer
    from sparring.suites.runner.run import Interrupted
    from sparring.suites.transfer import table as transfer_table

    if form not in transfer_table.FORMATS:
        raise InputError(f"--format: {unknown('format', form, transfer_table.FORMATS)}")
    if value not in transfer_table.VALUES:
        raise InputError(f"--value: {unknown('value', value, transfer_table.VALUES)}")
    try:
        with LiveReporter() as reporter:
            done = transfer(
                suite, surrogates=surrogates, targets=targets, out=out, profile=profile, overrides=set_ or (),
                workers=workers, limit_seconds=limit_seconds, device=device, reporter=reporter,
            )  # fmt: skip
    except Interrupted as stopped:
        print(f"sparring: {stopped}. The same command goes on from here", file=sys.stderr)
        sys.exit(130)
    assert done.transfer is not None
    if form == "rich":
        transfer_table.print_rich(done.transfer, console, value)
        console.print(f"Everything is in {done.folder}/: transfer.csv, transfer/*.csv, transfer/*.svg", highlight=False)
    else:
        sys.stdout.write(transfer_table.render(done.transfer, form, value))
    sys.exit(1 if done.failed else 0)


@app.command("convert")
def convert_command(
    model: Annotated[str, typer.Argument(help="a model's name (with --suite), a file, or a suite's model as YAML")],
    to: Annotated[str, typer.Option("--to", help="onnx, torch or keras")],
    out: Annotated[
        Path | None, typer.Option("--out", help="the file (default: MODEL's name)", show_default=False)
    ] = None,
    suite: Annotated[str | None, typer.Option(help="a suite file or study in which MODEL is a name")] = None,
    data: Annotated[str | None, typer.Option(help="the images to compare on: a data set's name or path")] = None,
    force: Annotated[bool, typer.Option("--force", help="overwrite the file")] = False,
) -> None:
    """Write a model for another framework: any model as ONNX, the named architectures between torch and Keras.

    Exit code 0: written, and it computes the same; 2: bad input, and nothing is written.
    """
    from sparring.suites.cli.convert import run

    sys.exit(run(model, to, out=out, suite=suite, data=data, force=force))


@app.command("certify")
def certify_command(
    a: Annotated[str, typer.Argument(help="a model's name (with --suite), a file, or a suite's model as YAML")],
    b: Annotated[str, typer.Argument(help="the other, likewise")],
    suite: Annotated[str | None, typer.Option(help="a suite file or study in which A and B are names")] = None,
    data: Annotated[
        str | None, typer.Option(help="real images: a data set's name or path (default: the suite's, or what fits)")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="how many images of the data's test part")] = 1000,
    attack_samples: Annotated[int, typer.Option(min=0, help="how many of them are attacked, for the verdicts")] = 200,
    eps: Annotated[str | None, typer.Option(help="the attacks' budget: 8/255 (default: by the data)")] = None,
    json_: Annotated[Path | None, typer.Option("--json", help="write the certificate into this file")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
) -> None:
    """Certify that two models are the same function: logits, gradients, verdicts on attacked images.

    Exit code 0: they are; 1: they are not, and the table says where they part; 2: bad input.
    """
    from sparring.suites.cli.certify import run

    sys.exit(run(
        a, b, suite=suite, data=data, samples=samples, attack_samples=attack_samples, eps=eps, json_file=json_,
        device=device,
    ))  # fmt: skip


@app.command("explain")
def explain_command(
    attack: Annotated[str, typer.Argument(help="a canonical attack (`sparring list attacks`)")],
    libraries: Annotated[str, typer.Option(help="the two to compare: A,B; names, or package.module:LIBRARY")],
    images: Annotated[
        str | None, typer.Option(help="their numbers in the suite's data: 0,3,7 (default: eight of them)")
    ] = None,
    suite: Annotated[str, typer.Option(help="the suite whose data and model are used")] = "quickstart",
    model: Annotated[str | None, typer.Option(help="a model of the suite (default: the first on torch)")] = None,
    norm: Annotated[str | None, typer.Option(help="linf, l2 or l0 (default: the attack's first)")] = None,
    param: Annotated[list[str] | None, typer.Option(help="a parameter of the attack: eps=8/255; repeatable")] = None,
    seed: Annotated[int, typer.Option(min=0, help="of random starts and targets")] = 0,
    targeted: Annotated[bool, typer.Option("--targeted", help="towards another class, drawn by the seed")] = False,
    plot: Annotated[Path | None, typer.Option(help="draw the paths into this file: .png, .svg or .pdf")] = None,
    json_: Annotated[Path | None, typer.Option("--json", help="write everything into this file")] = None,
    set_: SetOption = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
) -> None:
    """Say whether two libraries' attack is the same on some images, and if not, which one change makes it so.

    Exit code 0: the same, or the change is named; 1: different, and no one change explains it; 2: bad input.
    """
    from sparring.suites.cli.explain import run

    sys.exit(run(
        attack, libraries, images=images, suite=suite, model=model, norm=norm, params=param or (), seed=seed,
        targeted=targeted, plot=plot, json_file=json_, overrides=set_ or (), device=device,
    ))  # fmt: skip


@app.command("list")
def list_command(
    what: Annotated[
        str, typer.Argument(help="attacks, parameters, libraries, ledger, models, datasets, operators or studies")
    ],
) -> None:
    """List what there is: attacks (canonical and raw, and what runs where), models, data sets, ONNX operators, ..."""
    from sparring.adapters.errors import InputError, unknown
    from sparring.suites.cli.console import console
    from sparring.suites.cli.listings import LISTINGS

    if what not in LISTINGS:
        raise InputError(unknown("listing", what, LISTINGS))
    with console.status(f"asking the installed packages for their {what} ..."):
        parts = LISTINGS[what]()
    for part in parts:
        console.print(part)


@app.command("schema")
def schema_command() -> None:
    """Print the JSON Schema of a suite file, for editors."""
    import json

    from sparring.suites.plan.file import Suite

    print(json.dumps(Suite.model_json_schema(), indent=2))


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
            escape(spec.name), mine[0].cell.model.framework if mine else spec.runtime, str(len(mine)), str(stored),
            str(cannot), str(len(mine) - stored - cannot), "ready",
        )  # fmt: skip
    return table
