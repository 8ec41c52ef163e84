"""The program's name, its groups of commands, and the options that stand before any of them."""

from __future__ import annotations

import sys
from io import TextIOWrapper
from typing import Annotated

import typer

from chatport import __version__
from chatport.cli.backup import backup
from chatport.cli.budgets import budgets
from chatport.cli.chat.command import chat
from chatport.cli.configuration import configuration
from chatport.cli.explain import audit, explain
from chatport.cli.grants import corrections, grants
from chatport.cli.keys import keys
from chatport.cli.ledger import ledger
from chatport.cli.limits import limits
from chatport.cli.models import models
from chatport.cli.owners import owners
from chatport.cli.prices import prices
from chatport.cli.serve import serve
from chatport.cli.usage import usage

app = typer.Typer(
    name="chatport",
    help="""One port for every chat model: a complete Chat Completions server with a real model inside.

    Start with `chatport serve`: it fetches a small model, mints an API key and says what to do with it.""",
    epilog="`chatport COMMAND --help` explains one command, with examples.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(serve)
app.command()(chat)
app.command()(usage)
app.command()(explain)
app.command()(audit)
app.command()(backup)
app.add_typer(models, name="models")
app.add_typer(keys, name="keys")
app.add_typer(limits, name="limits")
app.add_typer(prices, name="prices")
app.add_typer(budgets, name="budgets")
app.add_typer(grants, name="grants")
app.add_typer(corrections, name="corrections")
app.add_typer(owners, name="owners")
app.add_typer(ledger, name="ledger")
app.add_typer(configuration, name="config")


def tell_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"chatport {__version__}")
        raise typer.Exit


@app.callback()
def chatport(
    version: Annotated[
        bool, typer.Option("--version", callback=tell_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Holds the options of the program itself."""


def main() -> None:
    """The program. Ends with one of `endings.Ending`."""
    for stream in (sys.stdout, sys.stderr):
        # Chinese on a terminal that can't show it must not end the program.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")
    app(prog_name="chatport")
