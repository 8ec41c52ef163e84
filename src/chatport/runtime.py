"""Builds, owns and closes everything long-lived: the whole wiring of the house is read here.

Only this file, its parts (opening.py, upstreams.py, settings.py, reloading.py) and the CLI read the Config; every other
room gets plain values. What is opened is closed in reverse order, also when a later line fails.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import structs

from chatport.attempts import Attempts
from chatport.backends.base import Backend
from chatport.backends.http.pool import Pools
from chatport.config import Config, ConfigError, ModelConfig
from chatport.counters.memory import MemoryCounters
from chatport.opening import ON_DEMAND, configured_prices, open_model, open_on_demand
from chatport.pipeline import Pace, Pipeline, Stages
from chatport.policy.budgets import Budgets
from chatport.policy.catalog import Catalog, Model
from chatport.policy.keeping import Keeping
from chatport.policy.keys import Keys
from chatport.policy.ledger import Ledger, Rules
from chatport.policy.limits import Limits
from chatport.policy.overview import Overview
from chatport.policy.owners import Owners
from chatport.policy.prices import Prices
from chatport.policy.replays import Replays
from chatport.policy.routing import Routing
from chatport.policy.stored import StoredCompletions
from chatport.policy.strictness import UnknownFields
from chatport.policy.upkeep import ROLL_UP_EVERY, Upkeep
from chatport.reloading import Reloaded, is_swappable, merged, restart_needed
from chatport.settings import ledger_settings, limits_of, server_settings, web_settings
from chatport.store import Store, open_store
from chatport.store.errors import StoreUnavailable
from chatport.web.app import create_app
from chatport.web.server import LISTEN_BACKLOG, run_server
from chatport.wire.errors import ApiError, InvalidRequest, Unavailable

if TYPE_CHECKING:
    from chatport.backends.on_demand.backend import OnDemandBackend

if sys.platform != "win32":
    import uvloop

PRUNE_EVERY = 600.0
"""Seconds between two sweeps for replies that no Idempotency-Key can bring back any more."""

LIST_EVERY = 600.0
"""Seconds between two looks at the models that an upstream lists."""

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

    models: list[Model]
    backends: dict[str, Backend]
    pipeline: Pipeline

    def __init__(self, config: Config, store: Store, keys: Keys, limits: Limits, pools: Pools) -> None:
        self.config = config
        self._reloading = asyncio.Lock()
        self.reread: Callable[[], Config] | None = None
        """Reads the configuration again, as the command that started the server would."""
        self.store = store
        self.keys = keys
        self.limits = limits
        self.pools = pools
        self.on_demand = open_on_demand(config, self._serve_also)
        self.catalog = Catalog((), look=self.on_demand.look if self.on_demand else None)
        self.stored = StoredCompletions(store.completions)
        self.replays = Replays(store.replays)
        self.rules = Rules(budgets=Budgets(store.budgets), prices=Prices(store.prices), owners=Owners(store.owners))
        self.overview = Overview(store, self.rules.budgets, limits)
        self.ledger = Ledger(store.journal, self.rules, ledger_settings(config.ledger))
        self.routing = Routing()
        self.unknown_fields = UnknownFields()

    def serve_models(self, models: list[Model], backends: dict[str, Backend]) -> None:
        """From the next request on these answer, and no others."""
        server = self.config.server
        self.models, self.backends = models, backends
        if self.on_demand is not None:
            backends[ON_DEMAND] = self.on_demand
        self.catalog.configure(models)
        self.pipeline = Pipeline(
            Stages(
                unknown_fields=self.unknown_fields,
                limits=self.limits,
                attempts=Attempts(self.catalog, backends, self.routing),
                ledger=self.ledger,
                keeping=Keeping(contents=self.config.ledger.keep_content, days=self.config.ledger.content_days),
                replays=self.replays,
            ),
            Pace(commit_after=server.stream_commit_after, keepalive=server.keepalive_seconds),
        )
        self.routing.keep_only(target for model in models for target in model.targets)

    async def reload(self) -> Reloaded:
        """Serves by the configuration as it is now. Raises InvalidRequest, and changes nothing, where that is bad. One
        at a time: the last one asked for is the one that stays."""
        async with self._reloading:
            return await self._reload()

    async def _reload(self) -> Reloaded:
        if self.reread is None:
            raise Unavailable("This server was started without a configuration to read again.")
        try:
            wanted = self.reread()
            entries = merged(self.config, wanted)
            models, backends = await self._exchanged(entries)
        except ConfigError as exc:
            raise InvalidRequest(f"The configuration was not changed: {exc}", code="invalid_configuration") from exc
        await self.rules.prices.adopt(configured_prices(entries), time.time())
        lacking = tuple(restart_needed(self.config, wanted))
        self.config = structs.replace(self.config, models=entries, limits=wanted.limits)
        self.limits.configure(limits_of(wanted))
        self.serve_models(models, backends)
        await self.list_families()
        return Reloaded(models=tuple(model.id for model in models), restart_needed=lacking)

    async def _exchanged(self, entries: tuple[ModelConfig, ...]) -> tuple[list[Model], dict[str, Backend]]:
        """The models of a changed configuration: what is embedded runs on, the rest is made anew."""
        running = {model.id: model for model in self.models}
        models: list[Model] = []
        backends: dict[str, Backend] = {}
        for entry in entries:
            if is_swappable(entry):
                model, opened = await open_model(entry, self.config, self.pools)
                backends |= opened
            else:
                model = running[entry.id]
                backends |= {target.backend: self.backends[target.backend] for target in model.targets}
            models.append(model)
        return models, backends

    async def on_hangup(self) -> None:
        """SIGHUP: as `reload`, told in the log."""
        try:
            done = await self.reload()
        except ApiError as error:
            log.error("%s", error.message)
        except StoreUnavailable as error:
            log.error("the configuration was not changed: the store does not answer: %s", error)
        else:
            log.info("the configuration was read again: %s", ", ".join(done.models))
            if done.restart_needed:
                log.warning("a restart is needed for: %s", ", ".join(done.restart_needed))

    async def readiness(self) -> Readiness:
        store = await self._store_state()
        models = {model.id: await self._model_state(model) for model in self.models if not model.targets[0].remote}
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

    async def learn_families(self) -> None:
        """Keeps the lists of `NAME/*` fresh, for as long as the server runs."""
        while True:
            await self.list_families()
            await asyncio.sleep(LIST_EVERY)

    async def list_families(self) -> None:
        """Asks the upstream of each `NAME/*` which models it has."""
        catalog = self.catalog
        for family in catalog.families:
            target = family.targets[0]
            try:
                catalog.learn(family, await self.backends[target.backend].models(target))
            except ApiError as error:
                log.warning("the models of %s can't be listed: %s", family.id, error.message)

    def _serve_also(self, models: Iterable[Model]) -> None:
        self.catalog.serve_also(models)

    async def prune(self) -> None:
        """Sweeps now and then, for as long as the server runs; a store that does not answer is tried again."""
        while True:
            await asyncio.sleep(PRUNE_EVERY)
            try:
                await self.replays.prune(time.time())
            except StoreUnavailable as exc:
                log.warning("old replies could not be swept: %s", exc)

    async def keep_up(self) -> None:
        """Rolls usage up and removes old records, for as long as the server runs."""
        upkeep = Upkeep(self.store, self.config.ledger.keep_days)
        while True:
            await asyncio.sleep(ROLL_UP_EVERY)
            try:
                await upkeep.turn(time.time())
            except StoreUnavailable as exc:
                log.warning("usage could not be rolled up: %s", exc)


@asynccontextmanager
async def running(config: Config) -> AsyncIterator[Runtime]:
    """The runtime, ready to answer. Raises StoreUnavailable and the backends' own errors for what can't be opened."""
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_store(config.store_url, durability=config.store.durability))
        limits = Limits(MemoryCounters(), store.limits)
        limits.configure(limits_of(config))
        await limits.load()
        # Before the keys', so that no new key is known without its limits.
        stack.callback(store.watch(limits.load))
        keys = Keys(store.keys)
        await keys.load()
        stack.callback(store.watch(keys.load))
        models: list[Model] = []
        backends: dict[str, Backend] = {}
        pools = Pools()
        stack.callback(pools.close)
        for entry in config.models:
            model, opened = await open_model(entry, config, pools)
            for backend in opened.values():
                stack.push_async_callback(backend.close)
            models.append(model)
            backends |= opened
        runtime = Runtime(config, store, keys, limits, pools)
        await runtime.rules.load()
        await runtime.rules.prices.adopt(configured_prices(config.models), time.time())
        stack.callback(store.watch(runtime.rules.load))
        await runtime.ledger.start()
        stack.push_async_callback(runtime.ledger.close)
        runtime.serve_models(models, backends)
        for task in (runtime.prune(), runtime.keep_up(), runtime.learn_families(), runtime.ledger.run()):
            stack.callback(asyncio.create_task(task).cancel)
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


async def serve(
    config: Config,
    sock: socket.socket,
    on_ready: Callable[[Runtime], Awaitable[None]],
    reread: Callable[[], Config] | None = None,
) -> None:
    """Serves on a bound socket until a signal ends it. Loads first, then listens, then calls `on_ready`.

    `reread`: reads the configuration again, for SIGHUP and POST /admin/reload.
    """
    async with running(config) as runtime:
        runtime.reread = reread
        _obey_hangup(runtime)
        app = create_app(runtime, web_settings(config))
        give_back_memory()
        sock.listen(LISTEN_BACKLOG)
        await on_ready(runtime)
        await run_server(app, sock, server_settings(config.server))


def give_back_memory() -> None:
    """What opening everything took and does not need any more: 6 MB with the default model, which glibc would keep.
    Other C libraries have no such call. What is there now stays: the collector need not look at it again and again."""
    gc.collect()
    gc.freeze()
    with suppress(AttributeError, OSError, TypeError):  # TypeError: Windows knows no library of the program itself
        ctypes.CDLL(None).malloc_trim(0)


def _obey_hangup(runtime: Runtime) -> None:
    if sys.platform == "win32":
        return
    loop = asyncio.get_running_loop()
    reloading: set[asyncio.Task[None]] = set()

    def hangup() -> None:
        task = loop.create_task(runtime.on_hangup())
        reloading.add(task)
        task.add_done_callback(reloading.discard)

    loop.add_signal_handler(signal.SIGHUP, hangup)


def run(main: Coroutine[Any, Any, None]) -> None:
    """Runs the program's one coroutine on the fastest loop the platform has."""
    if sys.platform == "win32":
        asyncio.run(main)
    else:
        uvloop.run(main)
