"""The command: names, order in the help, and the one place where errors become lines."""

import signal
import sys
from typing import Annotated

import typer
from rich.markup import escape

from dandelion.cli import asking, bench, contributing, demo, registry, services, verify
from dandelion.cli.output import Fault, err
from dandelion.errors import DandelionError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Ask a question of millions of browsers and learn only the answer.",
)

RUN, ASK, TRY = "Run", "Ask", "Take part and try"

app.command(rich_help_panel=TRY)(demo.demo)
app.command(rich_help_panel=RUN)(services.up)
app.command(rich_help_panel=RUN)(services.collector)
app.command(rich_help_panel=RUN)(services.helper)
app.add_typer(services.keys, name="keys", rich_help_panel=RUN)
app.add_typer(services.config, name="config", rich_help_panel=RUN)
app.add_typer(registry.registry, name="registry", rich_help_panel=ASK)
app.add_typer(asking.query, name="query", rich_help_panel=ASK)
app.add_typer(asking.rounds, name="rounds", rich_help_panel=ASK)
app.add_typer(asking.results, name="results", rich_help_panel=ASK)
app.command(rich_help_panel=ASK)(verify.verify)
app.command(rich_help_panel=TRY)(contributing.contribute)
app.command(rich_help_panel=TRY)(contributing.simulate)
app.command(rich_help_panel=TRY)(bench.bench)


def _version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        typer.echo(version("dandelion"))
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Ask a question of millions of browsers and learn only the answer."""


def main() -> None:
    """Entry point: an error is one line on standard error and a non-zero exit."""
    # Whoever stops a command stops the processes it started, in order.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app()
    except Fault as fault:
        err.print(f"[red]error:[/red] {escape(str(fault))}", soft_wrap=True)
        sys.exit(fault.code)
    except DandelionError as error:
        err.print(f"[red]error:[/red] {escape(str(error))}", soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
