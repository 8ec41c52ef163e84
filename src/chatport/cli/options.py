"""What several commands share: options, and the configuration they lead to."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from chatport.config import Config

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", metavar="FILE", help="The configuration file. Default: $CHATPORT_CONFIG, or none."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def print_json(value: object) -> None:
    """One line of JSON on stdout; paths as strings."""
    typer.echo(msgspec.json.encode(value, enc_hook=str))


def own_command() -> str:
    """How this program was called, with its full path: what a person can paste into another terminal."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return f"{shlex.quote(sys.executable)} -m chatport"
    return shlex.quote(str(called.absolute()))


def command_line(config: Config, *words: str) -> str:
    """Another command of this program that works on the same database: same home, same configuration file."""
    home = os.environ.get("CHATPORT_HOME")
    before = [f"CHATPORT_HOME={shlex.quote(str(config.home))}"] if home else []
    after = ["--config", shlex.quote(str(config.source.absolute()))] if config.source else []
    return " ".join([*before, own_command(), *words, *after])
