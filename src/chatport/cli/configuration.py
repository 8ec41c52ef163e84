"""`chatport config`: is the configuration good, and what does it come to."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated

import typer
from msgspec import Struct, structs

from chatport.backends.llama.catalogue import WeightsError
from chatport.backends.llama.gguf import read
from chatport.cli.endings import Ending, end
from chatport.cli.options import ConfigOption, JsonOption, print_json
from chatport.cli.serve import file_of, require_engine
from chatport.config import (
    Config,
    ConfigError,
    Fault,
    LlamaModel,
    ModelConfig,
    RoutedModel,
    ScriptedModel,
    ServerConfig,
    load,
)

configuration = typer.Typer(help="The configuration: check it before it is served.", no_args_is_help=True)


KINDS: dict[type[ModelConfig], str] = {LlamaModel: "llama", ScriptedModel: "scripted", RoutedModel: "upstream"}


class CheckedTarget(Struct, frozen=True, kw_only=True):
    """An upstream in `config check --probe --json`."""

    name: str
    problem: str | None
    """Why it could not answer."""


class CheckedModel(Struct, frozen=True, kw_only=True):
    """A model in `config check --json`."""

    id: str
    backend: str
    aliases: tuple[str, ...]
    file: Path | None
    """The weights; None for a model without any, and for one whose file is not here."""
    problem: str | None
    """Why `serve` could not serve it."""
    targets: tuple[CheckedTarget, ...] | None = None
    """What its upstreams said, with --probe; None without."""

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
def check(
    config: ConfigOption = None,
    probe: Annotated[
        bool,
        typer.Option("--probe", help="Ask each upstream too: is it there, takes it the key, has it the model?"),
    ] = False,
    as_json: JsonOption = False,
) -> None:
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
    if probe:
        models = asyncio.run(with_targets(models, found))
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
        for target in model.targets or ():
            typer.echo(f"  target    {target.name}: {target.problem or 'answers'}")
    for model in models:
        if model.problem is not None:
            typer.echo(f"error: {model.id}: {model.problem}", err=True)


async def with_targets(models: tuple[CheckedModel, ...], config: Config) -> tuple[CheckedModel, ...]:
    """The models with what their upstreams say. A model has a problem when none of its targets could answer."""
    from chatport.upstreams import probed  # noqa: PLC0415  only where upstreams are asked

    said: list[CheckedModel] = []
    for checked, entry in zip(models, config.models, strict=True):
        if not isinstance(entry, RoutedModel):
            said.append(checked)
            continue
        targets = tuple(CheckedTarget(name=name, problem=problem) for name, problem in await probed(entry, os.environ))
        lost = all(target.problem is not None for target in targets)
        problem = "; ".join(f"{target.name}: {target.problem}" for target in targets) if lost else None
        said.append(structs.replace(checked, targets=targets, problem=problem))
    return tuple(said)


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
    backend = KINDS[type(model)]
    return CheckedModel(id=model.id, backend=backend, aliases=model.aliases, file=file, problem=problem)
