"""A streamed answer on its connection: its chunks, taken one by one or poured where they arrive."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextvars import copy_context
from functools import partial

from chatport.backends.base import PouredChunks, Take
from chatport.backends.http.connection import Connection
from chatport.backends.openai.reading import StreamReader
from chatport.backends.openai.refusals import fault
from chatport.wire.chat import ChatChunk

AFTER_FINISH = 5.0
"""Seconds for the usage and `[DONE]` of a stream whose choices have all finished."""


class UpstreamChunks(PouredChunks):
    """Every chunk, and the usage at the end, which is estimated where the upstream does not say it.

    After `[DONE]`, or when all choices have finished, the stream may end as it likes: it is complete. Raises ApiErrors.
    """

    def __init__(self, answer: Connection, reader: StreamReader, target: str) -> None:
        self._answer = answer
        self._reader = reader
        self._target = target
        """Its id, for the log."""
        self._waiting: Iterator[ChatChunk] = iter(())
        """What has arrived. Read one at a time: what was said before a fault goes out before it."""
        self._over = False
        """Nothing more comes."""
        self._outcome: asyncio.Future[bool] | None = None
        """Of the pour that is waited for."""

    async def __anext__(self) -> ChatChunk:
        while (chunk := next(self._waiting, None)) is None:
            if self._read():
                continue
            if self._over:
                raise StopAsyncIteration
            await self._answer.more()
        return chunk

    async def pour(self, take: Take) -> bool:
        # Not kept in a variable here: a fault's traceback leads to this frame, and would keep the connection in memory.
        self._outcome = asyncio.get_running_loop().create_future()
        # The connection calls in a context of its own, which knows nothing of this request.
        self._answer.listener = partial(copy_context().run, self._arrived, take)
        try:
            self._arrived(take)
            return await self._outcome
        finally:
            self._answer.listener = self._outcome = None

    def _arrived(self, take: Take) -> None:
        """Something has happened to the answer."""
        if self._outcome is None or self._outcome.done():
            return
        try:
            if (said := self._pour(take)) is not None:
                self._outcome.set_result(said)
        except Exception as exc:  # noqa: BLE001  it belongs to the task that waits
            self._outcome.set_exception(exc)

    def _pour(self, take: Take) -> bool | None:
        """Hands on what is there; None: more must be waited for."""
        while True:
            for chunk in self._waiting:
                if not take(chunk):
                    return True
            if not self._read():
                return False if self._over else None

    def _read(self) -> bool:
        """Reads on, what has arrived or the end; whether there may be chunks now."""
        answer, reader = self._answer, self._reader
        if reader.finished and not answer.complete:
            answer.hurry(AFTER_FINISH)
        if answer.buffered and not reader.done:
            self._waiting = map(reader.chunk, reader.feed(answer.take()))
        elif not self._over and self._ended():
            self._over = True
            self._waiting = reader.end()
        else:
            return False
        return True

    def _ended(self) -> bool:
        """Whether nothing more comes. Raises what has ended the answer too early."""
        answer, reader = self._answer, self._reader
        if reader.done or answer.complete:
            answer.finish()
        elif answer.fault is None:
            return False
        elif not reader.finished:
            raise fault(answer.fault, self._target) from answer.fault
        return True
