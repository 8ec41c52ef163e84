"""What a backend is.

A backend answers in the wire format and nothing else: it knows no keys, no limits, no HTTP of ours. What it yields need
not be perfect (ids, `created`, the model's name and roles are the normaliser's business, see `wire/stream.py`), but it
must say of every choice how it ended, and what was used in the last chunk.

Leaving `stream`'s context, cancelled or not, frees what the request held there: a slot, a connection.

A stream's chunks are taken one by one, or poured: handed on where they arrive. To wake a task for each of them costs
more than all that is done with it, so a backend that can calls back instead (`PouredChunks`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeAlias

from chatport.targets import Bound, Target
from chatport.wire.chat import ChatChunk, ChatCompletion, ChatRequest
from chatport.wire.stream import Envelope, collect

Chunks = AbstractAsyncContextManager[AsyncIterator[ChatChunk]]

Take: TypeAlias = Callable[[ChatChunk], bool]
"""Takes a chunk, without waiting for anything. False: it was taken, and something must be waited for before the next.
It may be called from outside of the task that pours, and must not end that."""


class PouredChunks(AsyncIterator[ChatChunk], ABC):
    """Chunks that may be poured."""

    @abstractmethod
    async def pour(self, take: Take) -> bool:
        """Hands on what is there and what comes, also from the connection's callback: outside of the caller's task, but
        in a copy of its context. True: `take` has said no, and the rest may be poured later; False: there are no more.
        What `take` raises is raised here."""


async def pour(chunks: AsyncIterator[ChatChunk], take: Take) -> bool:
    """The same, for the chunks of any backend."""
    if isinstance(chunks, PouredChunks):
        return await chunks.pour(take)
    async for chunk in chunks:
        if not take(chunk):
            return True
    return False


class Backend(Protocol):
    """Raises only `wire.errors.ApiError`s; foreign exceptions are translated inside, with `from`."""

    async def bound(self, target: Target, request: ChatRequest) -> Bound:
        """The most this request can cost. Raises ContextExceeded, or Unsupported for what only a look inside shows."""
        ...

    async def complete(self, target: Target, request: ChatRequest, bound: Bound) -> ChatCompletion:
        """The whole answer."""
        ...

    def stream(self, target: Target, request: ChatRequest, bound: Bound) -> Chunks:
        """The answer as it is made; its last chunk carries the usage, wanted by the client or not."""
        ...

    async def models(self, target: Target) -> list[str]:
        """The names this backend would answer to."""
        ...

    async def probe(self, target: Target) -> None:
        """Returns when the target is ready to answer; raises Unavailable when it is not."""
        ...

    async def close(self) -> None:
        """Ends what is running and gives everything back. Idempotent."""
        ...


async def complete_by_streaming(backend: Backend, target: Target, request: ChatRequest, bound: Bound) -> ChatCompletion:
    """`complete` for a backend that makes its answers chunk by chunk: the same answer, and cancelled as promptly. Id
    and time are left empty; the pipeline gives every completion its own."""
    envelope = Envelope("", 0, target.model, target.fingerprint)
    async with backend.stream(target, request, bound) as chunks:
        return await collect(envelope, request.choices, chunks)
