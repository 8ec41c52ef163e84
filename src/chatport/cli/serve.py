"""`chatport serve`: the port, the models, the keys, then the server until a signal ends it."""

from __future__ import annotations

import errno
import importlib.util
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from chatport.backends.llama.catalogue import WeightsError
from chatport.backends.llama.installed import can_be_pulled, resolve
from chatport.cli.endings import Ending, end, store_told, told
from chatport.cli.keys import key_state
from chatport.cli.options import ConfigOption, command_line, own_command
from chatport.cli.port import bound, bound_unix, refusal, url_of
from chatport.cli.progress import shown_progress
from chatport.cli.proxies import catching, exemption, is_loopback
from chatport.cli.signals import ended_by_signals
from chatport.cli.welcome import BIGGER_MODEL, SMALL_MODEL, KeysMade, Start, welcome
from chatport.config import Config, ConfigError, Fault, LlamaModel, load

if TYPE_CHECKING:
    from chatport.policy.keys import Keys
    from chatport.runtime import Runtime

BOOTSTRAP = {"CHATPORT_BOOTSTRAP_KEY": False, "CHATPORT_BOOTSTRAP_ADMIN_KEY": True}
"""Variables that bring a key along, and whether it is an admin's."""


def serve(  # noqa: PLR0913, PLR0917  one parameter an option
    host: Annotated[
        str | None, typer.Option(help="Address to listen on. Default: 127.0.0.1, this machine only.")
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port to listen on, 0 for any free one. Default: 8000.")
    ] = None,
    config: ConfigOption = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|PATH.gguf",
            help="Serve this one model instead of those configured. A name that `chatport models list` shows, or "
            "owner/repo/file.gguf of a hub, is fetched where it is not here.",
        ),
    ] = None,
    log_level: Annotated[
        str | None, typer.Option(metavar="LEVEL", help="debug, info, warning or error. Default: info.")
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, help="Processes. Only 1 for now: limits are kept inside a process.")
    ] = 1,
) -> None:
    """Starts the server. Without any configuration it fetches a small model, once, and answers as `gpt-4`.

    The first start prints an API key and an admin key. Ctrl-C lets running requests end; a second one ends at once.

    Examples:

    * `chatport serve`
    * `chatport serve --model qwen3-4b`
    * `chatport serve --port 8080 --model ~/models/qwen2.5-7b-instruct-q4_k_m.gguf`
    * `chatport serve --config chatport.toml`
    """
    if workers > 1:
        end(
            Ending.USAGE,
            f"--workers {workers} is not possible yet: each process would keep limits of its own. Leave it at 1; one "
            "process answers many requests at the same time.",
        )
    with told(), ended_by_signals(Ending.OK, signal.SIGTERM):  # the server then sees to it itself

        def read() -> Config:
            return load(config, os.environ, host=host, port=port, log_level=log_level, model=model)

        found = read()
        with listening(found) as sock:
            _prepare_home(found)
            _require_models(found)
            _run(found, sock, read)


@contextmanager
def listening(config: Config) -> Iterator[socket.socket]:
    """The bound socket that the configuration asks for; a Unix socket's file goes with it."""
    path = config.server.uds
    if path is None:
        with bound(config.server.host, config.server.port) as sock:
            yield sock
        return
    with bound_unix(path) as sock:
        try:
            yield sock
        finally:
            with suppress(OSError):
                os.unlink(path)


def _prepare_home(config: Config) -> None:
    try:
        config.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        end(Ending.STORE, f"Can't make the folder {config.home}: {error.strerror}. CHATPORT_HOME names another one.")


def _require_models(config: Config) -> None:
    """Every model file is here; what no file configured is fetched, from the index or a hub. Raises WeightsError."""
    paths = [model.path for model in config.models if isinstance(model, LlamaModel)]
    if paths:
        require_engine()
    for path in paths:
        if file_of(path, config) is None:
            from chatport.backends.llama.weights import pull  # noqa: PLC0415  a server that runs fetches nothing

            with shown_progress() as progress:
                pull(path, config.home, progress)


def require_engine() -> None:
    """Raises WeightsError, with the command that installs it, where the engine is missing."""
    if importlib.util.find_spec("xllamacpp") is None:
        raise WeightsError(
            f"The engine that runs models is not installed. Install it with: {sys.executable} -m pip install "
            "'chatport[embedded]'"
        )


def file_of(path: str, config: Config) -> Path | None:
    """A model's file; None for one that is not here and that `serve` fetches, since no file configured it.

    Raises WeightsError where there is nothing to be had.
    """
    try:
        return resolve(path, config.home)
    except WeightsError:
        if config.chosen_by == "file" or not can_be_pulled(path):
            raise
        return None


def _run(config: Config, sock: socket.socket, read: Callable[[], Config]) -> None:
    """Loads, listens, greets, and serves until a signal."""
    from chatport.runtime import run, serve  # noqa: PLC0415  half a second that `--help` need not wait
    from chatport.telemetry import configure_logging  # noqa: PLC0415

    async def greet(runtime: Runtime) -> None:
        made = await first_keys(runtime.keys, os.environ)
        on_demand = tuple(runtime.on_demand.states()) if runtime.on_demand else ()
        url = url_of(sock, secure=config.server.tls_cert is not None)
        typer.echo(welcome(start_of(config, url, made, os.environ, on_demand)))
        sys.stdout.flush()

    configure_logging(config.server.log_level, json_lines=config.server.log_format == "json")
    try:
        with store_told():
            run(serve(config, sock, greet, read))
    except OSError as error:
        # Another program that had bound the port too began to listen while the models were loaded.
        if error.errno != errno.EADDRINUSE:
            raise
        end(Ending.PORT, refusal(config.server.host, config.server.port, error))


async def first_keys(keys: Keys, environ: Mapping[str, str]) -> KeysMade:
    """Registers the keys that the environment brings along. Where there is none at all, mints an API and an admin key.

    Raises ConfigError for a variable that holds no key.
    """
    now = time.time()
    known = {row.id for row in await keys.list()}
    registered = []
    for variable, admin in BOOTSTRAP.items():
        if key := environ.get(variable):
            try:
                row = await keys.register(key, name="bootstrap admin" if admin else "bootstrap", now=now, admin=admin)
            except ValueError as error:
                raise ConfigError(Fault(key=variable, sentence=str(error))) from error
            if row.id not in known:
                registered.append(variable)
    if not await keys.is_empty():
        has_admin = any(row.admin and key_state(row, now) == "open" for row in await keys.list())
        return KeysMade(registered=tuple(registered), has_admin=has_admin)
    api = await keys.create(name="first", now=now)
    admin_key = await keys.create(name="first admin", now=now, admin=True)
    return KeysMade(key=api.key, admin_key=admin_key.key)


def start_of(
    config: Config, url: str, made: KeysMade, environ: Mapping[str, str], on_demand: tuple[str, ...] = ()
) -> Start:
    """What there is to say about this start."""
    host = urlsplit(url).hostname or ""
    variable = catching(environ, host) if config.server.uds is None else None
    return Start(
        url=url,
        models=tuple((model.id, *model.aliases) for model in config.models),
        on_demand=on_demand,
        keys=made,
        mint=command_line(config, "keys", "create"),
        mint_admin=command_line(config, "keys", "create", "--admin"),
        small_model=any(isinstance(model, LlamaModel) and model.path == SMALL_MODEL for model in config.models),
        bigger=f"{own_command()} serve --model {BIGGER_MODEL}",
        replaced_by=str(config.source) if config.chosen_by == "file" else None,
        public=not is_loopback(config.server.host) and config.server.uds is None and config.server.tls_cert is None,
        uds=config.server.uds,
        proxy=(variable, exemption(environ)) if variable else None,
    )
