"""What a backend is.

A backend answers in the wire format and nothing else: it knows no keys, no limits, no HTTP of ours. What it yields need
not be perfect (ids, `created`, the model's name and roles are the normaliser's business, see `wire/stream.py`), but it
must say of every choice how it ended, and what was used in the last chunk.

Leaving `stream`'s context, cancelled or not, frees what the request held there: a slot, a connection.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from chatport.targets import Bound, Target
from chatport.wire.chat import ChatChunk, ChatCompletion, ChatRequest
from chatport.wire.stream import Envelope, collect

Chunks = AbstractAsyncContextManager[AsyncIterator[ChatChunk]]


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
