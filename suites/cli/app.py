"""The command line. The commands import heavy modules when they run: `sparring --help` answers at once."""

from __future__ import annotations

import sys

import typer

from sparring.adapters.disruptions import fault
from sparring.adapters.errors import Disruption, SparringError
from sparring.suites.cli.certify import certify_command
from sparring.suites.cli.compare import agree_command, diff_command, matrix_command
from sparring.suites.cli.convert import convert_command
from sparring.suites.cli.explain import explain_command
from sparring.suites.cli.listings import list_command, schema_command
from sparring.suites.cli.results import plot_command, report_command, table_command
from sparring.suites.cli.run import run_command
from sparring.suites.cli.transfer import transfer_command

app = typer.Typer(
    name="sparring",
    help="One classifier in the ring with every adversarial attack library at once: ART, Foolbox, torchattacks.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command("run")(run_command)
app.command("table")(table_command)
app.command("report")(report_command)
app.command("plot")(plot_command)
app.command("diff")(diff_command)
app.command("matrix")(matrix_command)
app.command("agree")(agree_command)
app.command("transfer")(transfer_command)
app.command("convert")(convert_command)
app.command("certify")(certify_command)
app.command("explain")(explain_command)
app.command("list")(list_command)
app.command("schema")(schema_command)


def main() -> None:
    """Run the command line; bad input is one message and exit code 2, a full disk or the like one and 3."""
    try:
        app()
    except SparringError as error:
        print(f"sparring: {error}", file=sys.stderr)
        sys.exit(getattr(error, "exit_code", 2))
    except BrokenPipeError:
        sys.exit(0)  # `sparring list attacks | head`
    except (Disruption, OSError) as error:
        if (disruption := fault(error)) is None:
            raise
        print(f"sparring: {disruption}", file=sys.stderr)
        sys.exit(3)
