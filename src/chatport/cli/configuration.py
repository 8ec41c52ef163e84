"""`chatport config`: is the configuration good, and what does it come to."""

from __future__ import annotations

import os
from pathlib import Path

import typer
from msgspec import Struct

from chatport.backends.llama.catalogue import WeightsError
from chatport.backends.llama.gguf import read
from chatport.cli.endings import Ending, end
from chatport.cli.options import ConfigOption, JsonOption, print_json
from chatport.cli.serve import file_of, require_engine
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
    """Why `serve` could not serve it."""

    @property
    def fetched(self) -> bool:
        """Whether `serve` would fetch the file first."""
        return self.backend == "llama" and self.file is None and self.problem is None


class Checked(Struct, frozen=True, kw_only=True):
    """What `config check --json` prints: not `ok` are faults, with which the rest is null, and models' problems."""

    ok: bool
    faults: tuple[Fault, ...] = ()
    source: Path | None = None
    home: Path | None = None
    server: ServerConfig | None = None
    models: tuple[CheckedModel, ...] | None = None


@configuration.command()
def check(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Reads the configuration as `serve` would, and says every fault with its file, line and key, or what it comes to.

    A model that could not be served is a fault too; one that `serve` would fetch first is not.

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
    ok = all(model.problem is None for model in models)
    if as_json:
        print_json(Checked(ok=ok, source=found.source, home=found.home, server=found.server, models=models))
    else:
        _print(found, models, "is good" if ok else "can be read, but not every model can be served")
    if not ok:
        raise typer.Exit(Ending.MODEL)


def _print(found: Config, models: tuple[CheckedModel, ...], verdict: str) -> None:
    typer.echo(f"{found.source or 'The configuration'} {verdict}.")
    typer.echo(f"listens on  {found.server.host} port {found.server.port}")
    typer.echo(f"home        {found.home}")
    for model in models:
        names = ", ".join([model.id, *model.aliases])
        typer.echo(f"model       {names}: {model.file or model.backend}{', to be fetched' if model.fetched else ''}")
    for model in models:
        if model.problem is not None:
            typer.echo(f"error: {model.id}: {model.problem}", err=True)


def checked_model(model: ModelConfig, config: Config) -> CheckedModel:
    """A model, and whether it could be served: as far as can be told without loading it."""
    file, problem = None, None
    if isinstance(model, LlamaModel):
        try:
            require_engine()
            file = file_of(model.path, config)
            if file is not None:
                read(file)
        except WeightsError as error:
            problem = str(error)
    backend = "llama" if isinstance(model, LlamaModel) else "scripted"
    return CheckedModel(id=model.id, backend=backend, aliases=model.aliases, file=file, problem=problem)
