"""The end of the pipe where the model is: runs the calls that come in on a backend, and says what it says."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from chatport.backends.base import Backend
from chatport.backends.on_demand.frames import (
    WINDOW,
    Bounded,
    Bounding,
    Call,
    Cancel,
    Completed,
    Completing,
    Ended,
    Grant,
    Message,
    Open,
    Reply,
    Said,
    Streaming,
    ToModel,
    failed,
)
from chatport.telemetry import REQUEST_ID
from chatport.wire.errors import ApiError, InternalError

log = logging.getLogger("chatport")


class Host:
    """`say` sends a message; it must not wait."""

    def __init__(self, backend: Backend, say: Callable[[Message], None]) -> None:
        self._backend = backend
        self._say = say
        self._running: dict[int, asyncio.Task[None]] = {}
        self._allowed: dict[int, asyncio.Semaphore] = {}

    def take(self, message: ToModel) -> None:
        """Begins a call, or does what is said about one; of one that is over nothing needs to be done."""
        match message:
            case Open():
                raise ValueError("a model is open already")
            case Cancel(call):
                if call in self._running:
                    self._running[call].cancel()
            case Grant(call, chunks):
                if call in self._allowed:
                    for _ in range(chunks):
                        self._allowed[call].release()
            case _:
                self._begin(message)

    async def leave(self) -> None:
        """Ends every call."""
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _begin(self, call: Call) -> None:
        task = asyncio.create_task(self._answer(call))
        self._running[call.call] = task
        # A task that is cancelled before it has begun says nothing at all; so the last word is not left to the task.
        task.add_done_callback(lambda done: self._end(call.call, done))

    def _end(self, call: int, task: asyncio.Task[None]) -> None:
        del self._running[call]
        self._allowed.pop(call, None)
        if task.cancelled():
            self._say(Ended(call))

    async def _answer(self, call: Call) -> None:
        REQUEST_ID.set(call.request_id)
        last: Reply
        try:
            last = await self._run(call)
        except ApiError as error:
            if isinstance(error, InternalError):
                log.error("an answer failed", exc_info=error)  # what led to it does not travel
            last = failed(call.call, error)
        except Exception as exc:
            log.error("unexpected error", exc_info=exc)
            last = failed(call.call, InternalError())
        self._say(last)

    async def _run(self, call: Call) -> Reply:
        match call:
            case Bounding(number, _, target, request):
                return Bounded(number, await self._backend.bound(target, request))
            case Completing(number, _, target, request, bound):
                return Completed(number, await self._backend.complete(target, request, bound))
            case Streaming(number):
                await self._stream(call)
                return Ended(number)

    async def _stream(self, call: Streaming) -> None:
        allowed = self._allowed[call.call] = asyncio.Semaphore(WINDOW)
        async with self._backend.stream(call.target, call.request, call.bound) as chunks:
            async for chunk in chunks:
                await allowed.acquire()
                self._say(Said(call.call, chunk))
