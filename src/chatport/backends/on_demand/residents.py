"""Which models are in memory: who is loaded, who waits for a place, who has to go.

Requests for a model that is there go straight to it. The others wait in one queue, first come, first served: its head
gets a place as soon as there is one, and loads without keeping those behind it. Where there is none, the model goes
that nobody uses and that was used least recently; where all are used, the least recently used one takes no further
requests until it has gone, so that nobody waits behind an endless row of others.

No process and no file: `load` brings a model, and its `close` ends it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Generic, Protocol, TypeVar

from msgspec import Struct

from chatport.backends.on_demand.shelf import ShelvedModel
from chatport.wire.errors import Unavailable

RETRY_AFTER = 5.0
"""Seconds that a client is asked to wait when it got no place."""

log = logging.getLogger("chatport")


class Closing(Protocol):
    async def close(self) -> None: ...


Loaded = TypeVar("Loaded", bound=Closing)


class Room(Struct, frozen=True, kw_only=True):
    """For how many models there is a place at once."""

    max_loaded: int
    max_memory: int
    """Bytes, of all together."""
    wait_seconds: float
    """How long a request waits for a place."""


class Resident(Generic[Loaded]):
    """A model with a place: it is being loaded, is there, or is on its way out."""

    def __init__(self, model: ShelvedModel, memory: int, loading: asyncio.Task[Loaded]) -> None:
        self.model = model
        self.memory = memory
        self.loading = loading
        self.users = 0
        self.used = loading.get_loop().time()
        """When a request last came or went."""
        self.leaving: asyncio.Task[None] | None = None

    @property
    def there(self) -> Loaded | None:
        """What was loaded; None before that, and where that failed."""
        return self.loading.result() if self.loading.done() and not self.failed else None

    @property
    def failed(self) -> bool:
        return self.loading.done() and (self.loading.cancelled() or self.loading.exception() is not None)


class _Waiting(Generic[Loaded]):
    """A request without a place."""

    def __init__(self, model: ShelvedModel, memory: int) -> None:
        self.model = model
        self.memory = memory
        self.resident: Resident[Loaded] | None = None
        self.turn = asyncio.Event()


class Residents(Generic[Loaded]):
    """`load` leaves nothing behind when it fails or is cancelled; `memory`: the bytes that a model needs."""

    def __init__(
        self,
        load: Callable[[ShelvedModel], Coroutine[Any, Any, Loaded]],
        memory: Callable[[ShelvedModel], int],
        room: Room,
    ) -> None:
        self._load = load
        self._memory = memory
        self._room = room
        self._residents: dict[ShelvedModel, Resident[Loaded]] = {}
        self._queue: deque[_Waiting[Loaded]] = deque()
        self._asked_to_go: Resident[Loaded] | None = None
        self._closed = False

    def state(self, model: ShelvedModel) -> str:
        """`loaded`, `loading` or `not loaded`."""
        resident = self._residents.get(model)
        if resident is None or resident.leaving:
            return "not loaded"
        return "loading" if resident.there is None else "loaded"

    @asynccontextmanager
    async def using(self, model: ShelvedModel) -> AsyncIterator[Loaded]:
        """The model, which stays as long as it is used; loaded first, where it is not there. Who leaves meanwhile
        leaves that going: others may want it. Raises Unavailable without a place in time, and what `load` raises."""
        resident = await self._admitted(model)
        try:
            # Not awaited itself: whoever is cancelled while he waits for a task cancels it.
            await asyncio.wait({resident.loading})
            if resident.loading.cancelled():
                raise _shut_down(model)
            yield resident.loading.result()
        finally:
            self._exit(resident)

    def unload_idle(self, seconds: float) -> None:
        """Unloads what nobody has used for so long."""
        now = asyncio.get_running_loop().time()
        for resident in self._idle():
            if now - resident.used >= seconds:
                self._unload(resident, f"unused for {seconds:g} s")

    def keep_only(self, models: Collection[ShelvedModel]) -> None:
        """Unloads what is none of these, unless it is used."""
        for resident in self._idle():
            if resident.model not in models:
                self._unload(resident, "its file is gone, or another one now")

    def lost(self, model: ShelvedModel) -> None:
        """A model that was loaded has ended by itself."""
        resident = self._residents.get(model)
        if resident is not None and resident.there is not None and not resident.leaving:
            self._remove(resident)

    async def close(self) -> None:
        """Unloads everything, used or not. Idempotent."""
        self._closed = True
        for waiting in self._queue:
            waiting.turn.set()
        self._queue.clear()
        for resident in self._residents.values():
            if not resident.leaving:
                self._unload(resident, "the server stops")
        await asyncio.gather(*(resident.leaving for resident in self._residents.values() if resident.leaving))

    # --- A place -----------------------------------------------------------------------------------------------------

    async def _admitted(self, model: ShelvedModel) -> Resident[Loaded]:
        """Counted among its users."""
        if self._closed:
            raise _shut_down(model)
        resident = self._open(model)
        if resident is None:
            return await self._in_turn(_Waiting(model, self._memory(model)))
        self._enter(resident)
        return resident

    async def _in_turn(self, waiting: _Waiting[Loaded]) -> Resident[Loaded]:
        self._refuse_giant(waiting)
        self._queue.append(waiting)
        self._dispatch()
        try:
            async with asyncio.timeout(self._room.wait_seconds):
                await waiting.turn.wait()
        except BaseException as exc:
            if waiting.resident is not None:
                self._exit(waiting.resident)
            elif waiting in self._queue:
                self._queue.remove(waiting)
                self._dispatch()
            if isinstance(exc, TimeoutError):
                raise self._no_place(waiting.model) from exc
            raise
        if waiting.resident is None:
            raise _shut_down(waiting.model)
        return waiting.resident

    def _dispatch(self) -> None:
        """Lets in whom there is a place for; where there is none, sees to it that there will be one."""
        self._asked_to_go = None
        while self._queue:
            first = self._queue[0]
            resident = self._open(first.model) or self._begin(first)
            if resident is None:
                self._make_room(first.memory)
                return
            self._queue.popleft()
            self._enter(resident)
            first.resident = resident
            first.turn.set()

    def _open(self, model: ShelvedModel) -> Resident[Loaded] | None:
        """The resident that takes requests for this model now."""
        resident = self._residents.get(model)
        if resident is None or resident.leaving or resident.failed or resident is self._asked_to_go:
            return None
        return resident

    def _begin(self, waiting: _Waiting[Loaded]) -> Resident[Loaded] | None:
        """Loads the model, if there is a place, and nothing left of it that is on its way out."""
        if waiting.model in self._residents or not self._fits(waiting.memory, self._residents.values()):
            return None
        loading = asyncio.create_task(self._load(waiting.model))
        resident = self._residents[waiting.model] = Resident(waiting.model, waiting.memory, loading)
        loading.add_done_callback(lambda _: self._remove(resident) if resident.failed else None)
        return resident

    def _make_room(self, memory: int) -> None:
        staying = [resident for resident in self._residents.values() if not resident.leaving]
        staying.sort(key=lambda resident: (resident.users > 0, resident.used))
        while staying and not self._fits(memory, staying):
            first = staying.pop(0)
            if first.users:
                self._asked_to_go = first
                return
            self._unload(first, "another one needs its place")

    def _fits(self, memory: int, beside: Collection[Resident[Loaded]]) -> bool:
        used = sum(resident.memory for resident in beside)
        return len(beside) < self._room.max_loaded and used + memory <= self._room.max_memory

    # --- Coming and going --------------------------------------------------------------------------------------------

    def _enter(self, resident: Resident[Loaded]) -> None:
        resident.users += 1
        resident.used = asyncio.get_running_loop().time()

    def _exit(self, resident: Resident[Loaded]) -> None:
        resident.users -= 1
        resident.used = asyncio.get_running_loop().time()
        if not resident.users:
            self._dispatch()

    def _idle(self) -> list[Resident[Loaded]]:
        return [resident for resident in self._residents.values() if not resident.users and not resident.leaving]

    def _unload(self, resident: Resident[Loaded], why: str) -> None:
        resident.leaving = asyncio.create_task(self._leave(resident, why))

    async def _leave(self, resident: Resident[Loaded], why: str) -> None:
        log.info("the model %s is unloaded: %s", resident.model.name, why)
        resident.loading.cancel()
        await asyncio.wait({resident.loading})
        if (there := resident.there) is not None:
            await there.close()
        self._remove(resident)

    def _remove(self, resident: Resident[Loaded]) -> None:
        if self._residents.get(resident.model) is resident:
            del self._residents[resident.model]
            self._dispatch()

    # --- Refusals ----------------------------------------------------------------------------------------------------

    def _refuse_giant(self, waiting: _Waiting[Loaded]) -> None:
        if waiting.memory > self._room.max_memory:
            raise Unavailable(
                f"The model {waiting.model.name} needs about {_gb(waiting.memory)} of memory, and models on demand may "
                f"have {_gb(self._room.max_memory)} (on_demand.max_memory_bytes)."
            )

    def _no_place(self, model: ShelvedModel) -> Unavailable:
        return Unavailable(
            f"The model {model.name} is not loaded, and those that are were in use for {self._room.wait_seconds:g} s.",
            retry_after=RETRY_AFTER,
        )


def _shut_down(model: ShelvedModel) -> Unavailable:
    return Unavailable(f"The model {model.name} is shut down.")


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
