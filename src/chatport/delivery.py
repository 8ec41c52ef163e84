"""How an answer leaves: its head exactly once, its frames, a sign of life in a long silence, a copy where one is kept.

The pipeline pushes into a `Sink` that the web room provides, and never yields to it: the client's leaving cancels the
one task that runs the request, and everything that must happen then happens there. Frames may leave from outside of
that task, where their chunks arrive (`push`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Protocol, Self

from chatport.store.errors import StoreUnavailable
from chatport.wire import sse
from chatport.wire.errors import ApiError, InternalError, Unavailable

JSON = b"application/json"
EVENT_STREAM = b"text/event-stream; charset=utf-8"

STREAM_HEADERS = [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
"""Nothing between us and the client may hold frames back."""

STORE_RETRY = 1.0
"""Seconds a client is asked to wait when the store does not answer."""

log = logging.getLogger("chatport")

Headers = list[tuple[bytes, bytes]]


class Sink(Protocol):
    """Where the bytes of a successful answer go. Each call may wait for a slow client."""

    async def head(self, headers: Headers) -> None:
        """Status 200 and these headers; once, before any data."""
        ...

    def now(self, data: bytes) -> bool:
        """One frame of a stream, if nobody has to be waited for. False: it was not taken."""
        ...

    def data(self, data: bytes) -> Awaitable[None]:
        """One frame of a stream, or the whole body."""
        ...

    async def end(self) -> None:
        """Nothing follows."""
        ...

    async def whole(self, headers: Headers, body: bytes) -> None:
        """Status 200, these headers, this body, and nothing else."""
        ...


def as_api_error(exc: Exception) -> ApiError:
    """What a client is told of any exception: the one place where foreign ones are translated on their way out."""
    if isinstance(exc, ApiError):
        return exc
    if isinstance(exc, StoreUnavailable):
        log.error("the store does not answer: %s", exc)
        return Unavailable("The server's database is not available right now.", retry_after=STORE_RETRY)
    log.error("unexpected error", exc_info=exc)
    return InternalError()


class Delivery:
    """One answer on its way to one client. A context: leaving it ends the signs of life, whatever happened.

    `headers` is asked when the head goes out, so that times in it are true. In a stream, after `commit_after` seconds
    without a frame the head goes out with an SSE comment, and a comment follows every `keepalive` seconds of silence
    (both None: never). `keep`: bytes of frames to keep a copy of; an answer that has more is not copied at all.
    """

    def __init__(
        self,
        sink: Sink,
        headers: Callable[[], Headers],
        *,
        commit_after: float | None = None,
        keepalive: float | None = None,
        keep: int = 0,
    ) -> None:
        self.committed = False
        """The head is out: from here on an error can only travel in the stream."""
        self.copy: list[bytes] | None = [] if keep else None
        self._room = keep
        self._late: list[bytes] = []
        """Frames that somebody must be waited for with."""
        self._sink = sink
        self._headers = headers
        self._commit_after = commit_after
        self._keepalive = keepalive
        self._last = 0.0
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._beat: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        if self._commit_after is not None:
            self._schedule(self._commit_after)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None
    ) -> None:
        self._fall_silent()
        await self._beaten()

    def push(self, data: bytes) -> bool:
        """A frame, if nobody has to be waited for. False: it waits, with all behind it, for `catch_up`."""
        if self._late or self._beat is not None or not self.committed or not self._sink.now(data):
            self._late.append(data)
            return False
        self._last = self._loop.time()
        if self.copy is not None:
            self._keep(self.copy, data)
        return True

    async def catch_up(self) -> None:
        """Sends the frames that wait."""
        late, self._late = self._late, []
        for data in late:
            await self.send(data)

    def send(self, data: bytes) -> Awaitable[None]:
        """A frame, or the body; the head before the first. (Mostly there is only the sink to wait for: a coroutine of
        our own around that would cost each frame more than all else here.)"""
        if self._beat is not None or not self.committed:
            return self._send_after_others(data)
        return self._hand_on(data)

    async def _send_after_others(self, data: bytes) -> None:
        await self._beaten()
        if not self.committed:
            await self._commit()
            await self._beaten()  # one may have begun while the head waited for a slow client
        await self._hand_on(data)

    def _hand_on(self, data: bytes) -> Awaitable[None]:
        if self.copy is not None:
            self._keep(self.copy, data)
        self._last = self._loop.time()
        return self._sink.data(data)

    def _keep(self, copy: list[bytes], data: bytes) -> None:
        copy.append(data)
        self._room -= len(data)
        if self._room < 0:
            self.copy = None

    async def finish(self, data: bytes) -> None:
        """The last frame, or the whole body. However long a slow client takes for it, no sign of life follows."""
        self._fall_silent()
        await self.send(data)
        await self._sink.end()

    async def fail(self, error: ApiError) -> None:
        """Raises the error while no head is out; afterwards says it in the stream and ends that (§10, 11-12)."""
        self._fall_silent()
        await self._beaten()
        if not self.committed:
            raise error
        await self._sink.data(sse.error_frame(error))
        await self._sink.end()

    async def _commit(self) -> None:
        self.committed = True
        await self._sink.head(self._headers())

    def _fall_silent(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _schedule(self, delay: float) -> None:
        self._timer = self._loop.call_later(delay, self._on_timer)

    def _on_timer(self) -> None:
        """Looks whether it was really silent; timers are not moved for each frame, that would cost more than this."""
        silent = self._loop.time() - self._last
        if self.committed and self._keepalive is not None and silent < self._keepalive:
            self._schedule(self._keepalive - silent)
        else:
            self._beat = self._loop.create_task(self._sign_of_life())

    async def _sign_of_life(self) -> None:
        if not self.committed:
            await self._commit()
        self._last = self._loop.time()
        await self._sink.data(sse.COMMENT)
        if self._timer is not None and self._keepalive is not None:
            self._schedule(self._keepalive)

    async def _beaten(self) -> None:
        """A sign of life under way goes out whole before anything else does."""
        if (beat := self._beat) is not None:
            await asyncio.wait({beat})
            self._beat = None
            if not beat.cancelled() and (fault := beat.exception()) is not None:
                raise fault
