"""`chatport config`: is the configuration good, and what does it come to."""

from __future__ import annotations

import os
from pathlib import Path

import typer
from msgspec import Struct

from chatport.backends.llama.catalogue import WeightsError
from chatport.backends.llama.weights import resolve
from chatport.cli.endings import Ending, end
from chatport.cli.options import ConfigOption, JsonOption, print_json
from chatport.config import Config, ConfigError, Fault, LlamaModel, ModelConfig, ServerConfig, load

configuration = typer.Typer(help="The configuration: check it before it is served.", no_args_is_help=True)


class CheckedModel(Struct, frozen=True, kw_only=True):
    """A model in `config check --json`."""

    id: str
    backend: str
    aliases: tuple[str, ...]
    file: Path | None
    """The weights; None for a model without any, and for one whose file is not here."""
    problem: str | None
    """Why the file can't be served."""


class Checked(Struct, frozen=True, kw_only=True):
    """What `config check --json` prints: `faults` is empty when `ok`, and the rest is null otherwise."""

    ok: bool
    faults: tuple[Fault, ...] = ()
    source: Path | None = None
    home: Path | None = None
    server: ServerConfig | None = None
    models: tuple[CheckedModel, ...] | None = None


@configuration.command()
def check(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Reads the configuration as `serve` would, and says every fault with its file, line and key, or what it comes to.

    Example: `chatport config check --config chatport.toml`
    """
    try:
        found = load(config, os.environ)
    except ConfigError as error:
        if as_json:
            print_json(Checked(ok=False, faults=error.faults))
            raise typer.Exit(Ending.CONFIG) from None
        end(Ending.CONFIG, str(error))
    models = tuple(checked_model(model, found) for model in found.models)
    if as_json:
        print_json(Checked(ok=True, source=found.source, home=found.home, server=found.server, models=models))
        return
    typer.echo(f"{found.source or 'The configuration'} is good.")
    typer.echo(f"listens on  {found.server.host} port {found.server.port}")
    typer.echo(f"home        {found.home}")
    for model in models:
        names = ", ".join([model.id, *model.aliases])
        typer.echo(f"model       {names}: {model.problem or model.file or model.backend}")


def checked_model(model: ModelConfig, config: Config) -> CheckedModel:
    """A model, and whether its file is here."""
    file, problem = None, None
    if isinstance(model, LlamaModel):
        try:
            file = resolve(model.path, config.home)
        except WeightsError as error:
            problem = str(error)
    backend = "llama" if isinstance(model, LlamaModel) else "scripted"
    return CheckedModel(id=model.id, backend=backend, aliases=model.aliases, file=file, problem=problem)
