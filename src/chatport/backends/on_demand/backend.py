"""Models that are loaded when they are asked for: one backend for every file on the shelf."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from msgspec import Struct

from chatport.backends.llama.catalogue import WeightsError
from chatport.backends.on_demand.residents import Residents, Room
from chatport.backends.on_demand.shelf import Shelf, ShelvedModel, unreadable
from chatport.targets import Bound, Target
from chatport.wire.chat import ChatChunk, ChatCompletion, ChatRequest
from chatport.wire.errors import ApiError, ModelNotFound, Unavailable

if TYPE_CHECKING:
    from chatport.backends.llama import LlamaSettings
    from chatport.backends.llama.installed import Installed
    from chatport.backends.on_demand.process import ModelProcess

LOOK_EVERY: Final = 1.0
"""Seconds between two looks at the shelf and at who is idle."""
LOOK_PAUSE: Final = 0.01
"""Seconds from one look to the next, however many unknown names are asked for. A look costs 0.1 ms."""
ENGINE_MEMORY: Final = 100_000_000
"""Bytes that a process with the engine takes beside weights and cache: 70 MB with the default model."""
SHARE_OF_MEMORY: Final = 0.75
"""How much of the machine's memory models on demand may have together, where nobody says."""

log = logging.getLogger("chatport")


class OnDemandSettings(Struct, frozen=True, kw_only=True):
    """How models are loaded on demand, and how long they stay."""

    idle_seconds: float
    load_seconds: float
    wait_seconds: float
    max_loaded: int
    max_memory: int | None
    """Bytes; None: SHARE_OF_MEMORY of what there is."""
    context: int
    slots: int
    threads: int | None
    gpu_layers: int | Literal["auto"]

    def for_model(self, model: ShelvedModel) -> LlamaSettings:
        """How this one is run."""
        from chatport.backends.llama import LlamaSettings  # noqa: PLC0415  loaded where there is a model

        return LlamaSettings(
            path=model.path,
            slots=self.slots,
            context=self.context,
            threads=self.threads,
            gpu_layers=self.gpu_layers,
        )

    def window(self, model: ShelvedModel) -> int:
        """Tokens."""
        return min(model.context, self.context)

    def memory(self, model: ShelvedModel) -> int:
        """Bytes, about."""
        return model.size + self.window(model) * model.token_memory + ENGINE_MEMORY


class OnDemandBackend:
    """`Target.model` is a model's name. `wanted` says which files are to be served at all, and `on_change` hears of all
    of them whenever some came or went."""

    def __init__(
        self,
        home: Path,
        settings: OnDemandSettings,
        wanted: Callable[[Installed], bool],
        on_change: Callable[[Collection[ShelvedModel]], None],
    ) -> None:
        self._settings = settings
        self._on_change = on_change
        self._shelf = Shelf(home, wanted)
        self._models: dict[str, ShelvedModel] = {}
        self._looking = asyncio.Lock()
        self._looked = float("-inf")
        room = Room(
            max_loaded=settings.max_loaded,
            max_memory=settings.max_memory or int(machine_memory() * SHARE_OF_MEMORY),
            wait_seconds=settings.wait_seconds,
        )
        self._residents: Residents[ModelProcess] = Residents(self._load, settings.memory, room)
        self._closed = False

    def states(self) -> dict[str, str]:
        """Each model's: `loaded`, `loading`, `not loaded`, or why it can't be."""
        return {
            name: self._residents.state(model) if model.fault is None else unreadable(model)
            for name, model in self._models.items()
        }

    async def look(self) -> None:
        """Finds what came and went. Returns after a look that began after the call; those who wait share it."""
        loop = asyncio.get_running_loop()
        asked = loop.time()
        async with self._looking:
            if self._looked > asked:
                return
            await asyncio.sleep(self._looked + LOOK_PAUSE - loop.time())
            self._looked = loop.time()
            try:
                found = await asyncio.to_thread(self._shelf.look)
            except OSError as exc:
                log.warning("the folder of the models can't be read: %s", exc)
                return
            self._take(found)

    async def watch(self) -> None:
        """Looks at the shelf and unloads what is idle, for as long as the server runs."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            await self.look()
            self._residents.unload_idle(self._settings.idle_seconds)

    async def bound(self, target: Target, request: ChatRequest) -> Bound:
        """Exact, and so the model is loaded for it."""
        async with self._using(target) as model:
            return await model.bound(target, request)

    async def complete(self, target: Target, request: ChatRequest, bound: Bound) -> ChatCompletion:
        async with self._using(target) as model:
            return await model.complete(target, request, bound)

    @asynccontextmanager
    async def stream(
        self, target: Target, request: ChatRequest, bound: Bound
    ) -> AsyncIterator[AsyncIterator[ChatChunk]]:
        async with self._using(target) as model, model.stream(target, request, bound) as chunks:
            yield chunks

    async def models(self, target: Target) -> list[str]:
        return list(self._models)

    async def probe(self, target: Target) -> None:
        """Ready, loaded or not, as long as there is a file that can be loaded."""
        self._find(target)

    async def close(self) -> None:
        """Ends what is running and every model's process."""
        self._closed = True
        await self._residents.close()

    # --- Files -------------------------------------------------------------------------------------------------------

    def _take(self, found: list[ShelvedModel]) -> None:
        models = {model.name: model for model in found}
        if models == self._models:
            self._residents.keep_only(models.values())
            return
        for model in models.values():
            if model.fault is not None and model != self._models.get(model.name):
                log.warning("the model %s can't be served: %s", model.name, model.fault)
        self._models = models
        self._residents.keep_only(models.values())
        log.info("models on demand: %s", ", ".join(models) or "none")
        self._on_change(models.values())

    def _find(self, target: Target) -> ShelvedModel:
        if self._closed:
            raise Unavailable(f"The model {target.model} is shut down.")
        model = self._models.get(target.model)
        if model is None:
            raise ModelNotFound(target.model)
        if model.fault is not None:
            raise Unavailable(unreadable(model))
        return model

    # --- Processes ---------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _using(self, target: Target) -> AsyncIterator[ModelProcess]:
        async with self._residents.using(self._find(target)) as model:
            yield model

    async def _load(self, model: ShelvedModel) -> ModelProcess:
        from chatport.backends.on_demand.process import ModelProcess  # noqa: PLC0415  as above

        log.info("the model %s is being loaded", model.name)
        began = time.perf_counter()
        try:
            process = await ModelProcess.load(
                model.name,
                self._settings.for_model(model),
                self._settings.load_seconds,
                lambda: self._residents.lost(model),
            )
        except (ApiError, WeightsError) as exc:
            log.error("the model %s can't be loaded: %s", model.name, exc)
            raise Unavailable(_for_clients(str(exc), model)) from exc
        log.info(
            "the model %s is loaded, in %.1f s, by process %d", model.name, time.perf_counter() - began, process.pid
        )
        return process


def _for_clients(sentence: str, model: ShelvedModel) -> str:
    """A sentence that names the file tells of its contents (ModelFileError), which are for the log alone."""
    return unreadable(model) if str(model.path) in sentence else sentence


def machine_memory() -> int:
    """Bytes: what the machine has, or the container may use of it."""
    has = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(has, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):  # no such file, or it says "max"
        return has
