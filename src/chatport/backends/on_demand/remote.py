"""The program's end of the pipe: a backend whose model is elsewhere."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from itertools import count
from typing import TypeVar

from chatport.backends.llama.backend import LlamaSettings
from chatport.backends.on_demand.frames import (
    GRANT,
    Bounded,
    Bounding,
    Call,
    Cancel,
    Completed,
    Completing,
    Ended,
    Failed,
    FromModel,
    Grant,
    Logged,
    Message,
    Open,
    Opened,
    Reply,
    Said,
    Streaming,
    error_of,
    failed,
)
from chatport.targets import Bound, Target
from chatport.telemetry import REQUEST_ID
from chatport.wire.chat import ChatChunk, ChatCompletion, ChatRequest
from chatport.wire.errors import InternalError, Unavailable

RETRY_AFTER = 1.0
"""Seconds that a client is asked to wait when the model's process has ended: the next request starts another."""

log = logging.getLogger("chatport")

Kind = TypeVar("Kind", bound=Reply)


class RemoteBackend:
    """`say` sends a message; what comes back is given to `take`, and the end of everything is told to `lose`."""

    def __init__(self, name: str, say: Callable[[Message], None]) -> None:
        self._name = name
        self._say = say
        self._calls: dict[int, _Inbox] = {}
        self._numbers = count(1)
        self._lost: str | None = None

    @property
    def in_flight(self) -> int:
        """Calls whose last word has not come."""
        return len(self._calls)

    # --- What comes from the model's process -------------------------------------------------------------------------

    def take(self, message: FromModel) -> None:
        if isinstance(message, Logged):
            token = REQUEST_ID.set(message.request_id)
            log.log(message.level, "%s: %s", self._name, message.text)
            REQUEST_ID.reset(token)
        elif inbox := self._calls.get(message.call):
            inbox.put(message)

    def lose(self, reason: str) -> None:
        """Nothing comes any more: every call ends with this sentence, now and later. The first one counts."""
        if self._lost is None:
            self._lost = reason
            for inbox in self._calls.values():
                inbox.put(failed(inbox.call, self._gone(reason)))

    @staticmethod
    def _gone(reason: str) -> Unavailable:
        return Unavailable(reason, retry_after=RETRY_AFTER)

    # --- The backend -------------------------------------------------------------------------------------------------

    async def open(self, settings: LlamaSettings) -> None:
        """Loads the model. Raises the ApiError that says why it can't be."""
        async with self._calling(lambda call: Open(call, settings)) as inbox:
            _expected(await inbox.take(), Opened)

    async def bound(self, target: Target, request: ChatRequest) -> Bound:
        async with self._calling(lambda call: Bounding(call, REQUEST_ID.get(), target, request)) as inbox:
            return _expected(await inbox.take(), Bounded).bound

    async def complete(self, target: Target, request: ChatRequest, bound: Bound) -> ChatCompletion:
        async with self._calling(lambda call: Completing(call, REQUEST_ID.get(), target, request, bound)) as inbox:
            return _expected(await inbox.take(), Completed).completion

    @asynccontextmanager
    async def stream(
        self, target: Target, request: ChatRequest, bound: Bound
    ) -> AsyncIterator[AsyncIterator[ChatChunk]]:
        calling = self._calling(lambda call: Streaming(call, REQUEST_ID.get(), target, request, bound))
        async with calling as inbox, aclosing(self._chunks(inbox)) as chunks:
            yield chunks

    async def models(self, target: Target) -> list[str]:
        """It answers to whatever it is called."""
        return [target.model]

    async def probe(self, target: Target) -> None:
        """Ready as long as the other end is there."""
        if self._lost is not None:
            raise self._gone(self._lost)

    async def close(self) -> None:
        """Ends what is running, and takes nothing more."""
        self.lose(f"The model {self._name} is shut down.")

    async def _chunks(self, inbox: _Inbox) -> AsyncGenerator[ChatChunk, None]:
        read = 0
        while isinstance(said := await inbox.take(), Said):
            yield said.chunk
            read += 1
            if read % GRANT == 0:
                self._say(Grant(inbox.call, GRANT))
        _expected(said, Ended)

    @asynccontextmanager
    async def _calling(self, ask: Callable[[int], Open | Call]) -> AsyncIterator[_Inbox]:
        """A call, from its first word to its last: left early, it is cancelled, and awaited until it holds nothing."""
        if self._lost is not None:
            raise self._gone(self._lost)
        inbox = _Inbox(next(self._numbers))
        self._calls[inbox.call] = inbox
        self._say(ask(inbox.call))
        try:
            yield inbox
        finally:
            try:
                if not inbox.over:
                    self._say(Cancel(inbox.call))
                    await inbox.end()
            finally:
                del self._calls[inbox.call]


class _Inbox:
    """What has been said to one call and not been taken."""

    def __init__(self, call: int) -> None:
        self.call = call
        self.over = False
        """The last word has come."""
        self._said: deque[Reply] = deque()
        self._come = asyncio.Event()

    def put(self, reply: Reply) -> None:
        if not self.over:
            self._said.append(reply)
            self.over = not isinstance(reply, Said)
            self._come.set()

    async def take(self) -> Reply:
        """Raises the ApiError that ended the call."""
        while not self._said:
            await self._more()
        reply = self._said.popleft()
        if isinstance(reply, Failed):
            raise error_of(reply)
        return reply

    async def end(self) -> None:
        """Returns when the last word has come."""
        while not self.over:
            await self._more()

    async def _more(self) -> None:
        self._come.clear()
        await self._come.wait()


def _expected(reply: Reply, kind: type[Kind]) -> Kind:
    if not isinstance(reply, kind):
        raise InternalError
    return reply
