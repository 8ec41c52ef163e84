"""Builds, owns and closes everything long-lived: the whole wiring of the house is read here.

Only this file and the CLI read the Config; every other room gets plain values. What is opened is closed in reverse
order, also when a later line fails.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import hashlib
import logging
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from chatport import __version__
from chatport.backends import scripted
from chatport.backends.base import Backend
from chatport.config import Config, LlamaModel, ModelConfig, ScriptedModel, ServerConfig
from chatport.pipeline import Pace, Pipeline
from chatport.policy.catalog import Catalog, Model
from chatport.policy.keys import Keys
from chatport.policy.replays import Replays
from chatport.policy.stored import StoredCompletions
from chatport.store import Store, open_store
from chatport.store.errors import StoreUnavailable
from chatport.targets import Target
from chatport.web.app import create_app
from chatport.web.limits import HTTPLimits
from chatport.web.server import LISTEN_BACKLOG, ServerSettings, run_server
from chatport.web.site import WebSettings
from chatport.wire.decode import DecodeLimits
from chatport.wire.errors import ApiError

if TYPE_CHECKING:
    from chatport.backends.on_demand.backend import OnDemandBackend, OnDemandSettings
    from chatport.backends.on_demand.shelf import ShelvedModel

if sys.platform != "win32":
    import uvloop

PRUNE_EVERY = 600.0
"""Seconds between two sweeps for replies that no Idempotency-Key can bring back any more."""

RELEASED = 1_795_392_000
"""Unix seconds of this program's first release: `created` of a model that is no file."""

ON_DEMAND = "on demand"
"""The key, among the backends, of the one for models that nobody configured; no model's id holds a space."""

log = logging.getLogger("chatport")


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    """What /readyz says. Ready: the store answers and every model inside the process does."""

    ready: bool
    configuration: str = "ready"
    """A server that runs has a valid one."""
    store: str
    models: dict[str, str]
    on_demand: dict[str, str] = {}
    """Of models that are loaded when they are asked for: `loaded`, `loading`, `not loaded`, or why they can't be."""


class Runtime:
    """Everything a running server has, built once."""

    def __init__(
        self, config: Config, store: Store, keys: Keys, models: list[Model], backends: dict[str, Backend]
    ) -> None:
        self.config = config
        self.store = store
        self.keys = keys
        self.models = models
        self.backends = backends
        self.on_demand = open_on_demand(config, self._serve_also) if serves_on_demand(config) else None
        self.catalog = Catalog(models, look=self.on_demand.look if self.on_demand else None)
        if self.on_demand is not None:
            backends[ON_DEMAND] = self.on_demand
        self.stored = StoredCompletions(store.completions)
        self.replays = Replays(store.replays)
        self.pipeline = Pipeline(
            self.catalog,
            backends,
            self.replays,
            self.stored,
            Pace(commit_after=config.server.stream_commit_after, keepalive=config.server.keepalive_seconds),
        )

    async def readiness(self) -> Readiness:
        store = await self._store_state()
        models = {model.id: await self._model_state(model) for model in self.models}
        return Readiness(
            ready=store == "ready" and {*models.values()} <= {"ready"},
            store=store,
            models=models,
            on_demand=self.on_demand.states() if self.on_demand else {},
        )

    async def _store_state(self) -> str:
        try:
            await self.store.ping()
        except StoreUnavailable:
            return "unavailable"
        return "ready"

    async def _model_state(self, model: Model) -> str:
        target = model.targets[0]
        try:
            await self.backends[target.backend].probe(target)
        except ApiError as error:
            return error.message
        return "ready"

    def _serve_also(self, found: Collection[ShelvedModel], settings: OnDemandSettings) -> None:
        self.catalog.serve_also(on_demand_model(model, settings) for model in found)

    async def prune(self) -> None:
        """Sweeps now and then, for as long as the server runs; a store that does not answer is tried again."""
        while True:
            await asyncio.sleep(PRUNE_EVERY)
            try:
                await self.replays.prune(time.time())
            except StoreUnavailable as exc:
                log.warning("old replies could not be swept: %s", exc)


@asynccontextmanager
async def running(config: Config) -> AsyncIterator[Runtime]:
    """The runtime, ready to answer. Raises StoreUnavailable and the backends' own errors for what can't be opened."""
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_store(config.store_url, durability=config.store.durability))
        keys = Keys(store.keys)
        await keys.load()
        stack.callback(store.watch(keys.load))
        models: list[Model] = []
        backends: dict[str, Backend] = {}
        for entry in config.models:
            model, backend = await open_model(entry, config.home)
            stack.push_async_callback(backend.close)
            models.append(model)
            backends[entry.id] = backend
        runtime = Runtime(config, store, keys, models, backends)
        sweeping = asyncio.create_task(runtime.prune())
        stack.callback(sweeping.cancel)
        if runtime.on_demand is not None:
            await stack.enter_async_context(watched(runtime.on_demand))
        yield runtime


@asynccontextmanager
async def watched(on_demand: OnDemandBackend) -> AsyncIterator[None]:
    """Keeps an eye on the model files, and on the models that are loaded; in the end unloads them."""
    await on_demand.look()
    watching = asyncio.create_task(on_demand.watch())
    try:
        yield
    finally:
        watching.cancel()
        await on_demand.close()


async def open_model(entry: ModelConfig, home: Path) -> tuple[Model, Backend]:
    """A model as the configuration describes it, and the backend that answers for it."""
    match entry:
        case ScriptedModel():
            return open_scripted(entry)
        case LlamaModel():
            return await open_llama(entry, home)


def open_scripted(entry: ScriptedModel) -> tuple[Model, Backend]:
    backend = scripted.ScriptedBackend(entry.reply, delay_ms=entry.delay_ms, fail_status=entry.fail_status)
    target = Target(
        id=entry.id,
        backend=entry.id,
        model=entry.id,
        features=scripted.FEATURES,
        fingerprint=fingerprint(msgspec.json.encode(entry)),
    )
    return described(entry, target, RELEASED), backend


async def open_llama(entry: LlamaModel, home: Path) -> tuple[Model, Backend]:
    """Loads the model: seconds, during which nothing else runs in this process (engine.md, pitfall 2)."""
    from chatport.backends.llama import FEATURES, LlamaBackend, LlamaSettings  # noqa: PLC0415  loads the engine
    from chatport.backends.llama.installed import resolve  # noqa: PLC0415  only where a model file is wanted

    path = resolve(entry.path, home)
    backend = await LlamaBackend.open(
        LlamaSettings(
            path=path,
            slots=entry.slots,
            context=entry.context,
            threads=entry.threads,
            queue=entry.queue,
            system_prompt=entry.system_prompt,
            gpu_layers=entry.gpu_layers,
            chat_template=None if entry.chat_template is None else Path(entry.chat_template),
            tool_format=None if entry.tool_format == "auto" else entry.tool_format,
            default_max_tokens=entry.default_max_tokens,
        )
    )
    target = Target(
        id=entry.id,
        backend=entry.id,
        model=entry.id,
        features=FEATURES,
        fingerprint=backend.fingerprint,
        context=backend.context_length,
    )
    return described(entry, target, int(path.stat().st_mtime)), backend


def serves_on_demand(config: Config) -> bool:
    """Whether model files that nobody configured are served: their processes need pipes that Windows does not have."""
    return config.on_demand.enabled and sys.platform != "win32"


def open_on_demand(
    config: Config, on_change: Callable[[Collection[ShelvedModel], OnDemandSettings], None]
) -> OnDemandBackend:
    """What is in the folder of models beside those that are configured."""
    from chatport.backends.llama.installed import resolve  # noqa: PLC0415  as above
    from chatport.backends.on_demand.backend import OnDemandBackend, OnDemandSettings  # noqa: PLC0415

    names = {name for entry in config.models for name in (entry.id, *entry.aliases)}
    files = {resolve(entry.path, config.home).absolute() for entry in config.models if isinstance(entry, LlamaModel)}
    entry = config.on_demand
    settings = OnDemandSettings(
        idle_seconds=entry.idle_seconds,
        load_seconds=entry.load_seconds,
        wait_seconds=entry.wait_seconds,
        max_loaded=entry.max_loaded,
        max_memory=entry.max_memory_bytes,
        context=entry.context,
        slots=entry.slots,
        threads=entry.threads,
        gpu_layers=entry.gpu_layers,
    )

    def wanted(model: ShelvedModel) -> bool:
        return model.name not in names and model.path.absolute() not in files

    return OnDemandBackend(config.home, settings, wanted, lambda found: on_change(found, settings))


def on_demand_model(model: ShelvedModel, settings: OnDemandSettings) -> Model:
    """A model file as the catalog has it; loaded or not makes no difference there."""
    run = msgspec.structs.replace(settings.for_model(model), path=Path(model.digest))
    target = Target(
        id=model.name,
        backend=ON_DEMAND,
        model=model.name,
        features=model.features,
        fingerprint=fingerprint(msgspec.json.encode(run, enc_hook=str)),
        context=None if model.fault else settings.window(model),
    )
    return described(LlamaModel(id=model.name, path=str(model.path)), target, model.changed_ns // 1_000_000_000)


def described(entry: LlamaModel | ScriptedModel, target: Target, created: int) -> Model:
    return Model(
        id=entry.id,
        aliases=entry.aliases,
        targets=(target,),
        created=created,
        owned_by=entry.owned_by,
        context_length=target.context,
        capabilities=tuple(sorted(target.features)),
    )


def fingerprint(description: bytes) -> str:
    """`fp_…`: the same as long as the description and the program are."""
    return "fp_" + hashlib.sha256(description + __version__.encode()).hexdigest()[:10]


async def serve(config: Config, sock: socket.socket, on_ready: Callable[[Runtime], Awaitable[None]]) -> None:
    """Serves on a bound socket until a signal ends it. Loads first, then listens, then calls `on_ready`."""
    async with running(config) as runtime:
        app = create_app(runtime, web_settings(config.server))
        give_back_memory()
        sock.listen(LISTEN_BACKLOG)
        await on_ready(runtime)
        await run_server(app, sock, server_settings(config.server))


def give_back_memory() -> None:
    """What opening everything took and does not need any more: 6 MB with the default model, which glibc would keep.
    Other C libraries have no such call."""
    gc.collect()
    with suppress(AttributeError, OSError, TypeError):  # TypeError: Windows knows no library of the program itself
        ctypes.CDLL(None).malloc_trim(0)


def web_settings(server: ServerConfig) -> WebSettings:
    return WebSettings(
        max_body_bytes=server.max_body_bytes,
        decode_limits=DecodeLimits(max_depth=server.max_json_depth, max_messages=server.max_messages),
        cors_origins=server.cors_origins,
    )


def server_settings(server: ServerConfig) -> ServerSettings:
    limits = HTTPLimits(
        max_header_bytes=server.max_header_bytes,
        max_body_bytes=server.max_body_bytes,
        header_seconds=server.header_seconds,
        body_seconds=server.body_seconds,
        idle_seconds=server.idle_seconds,
        max_connections=server.max_connections,
    )
    return ServerSettings(drain_seconds=server.drain_seconds, limits=limits)


def run(main: Coroutine[Any, Any, None]) -> None:
    """Runs the program's one coroutine on the fastest loop the platform has."""
    if sys.platform == "win32":
        asyncio.run(main)
    else:
        uvloop.run(main)
