"""An application without a house behind it: one key, two models, and answers that say how they go wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

import msgspec

from chatport.counters.memory import MemoryCounters
from chatport.pipeline import Call, Pipeline
from chatport.policy.catalog import Catalog, Model
from chatport.policy.keys import Caller, Keys
from chatport.policy.limits import Limits
from chatport.policy.overview import Overview
from chatport.policy.stored import StoredCompletions
from chatport.policy.strictness import UnknownFields
from chatport.reloading import Reloaded
from chatport.store.errors import StoreUnavailable
from chatport.targets import Target
from chatport.web.exchange import Exchange
from chatport.wire.errors import ApiError, InvalidKey, Unavailable

ALICE = Caller("key_alice", "alice", admin=False, models=None)

ADMIN = Caller("key_admin", "admin", admin=True, models=None)

STREAM_HEAD = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]


class OneKey:
    """`sk-good` is the key, `sk-admin` an admin's."""

    def authenticate(self, authorization: str | None, now: float) -> Caller:
        if authorization == "Bearer sk-admin":
            return ADMIN
        if authorization != "Bearer sk-good":
            raise InvalidKey("no such key")
        return ALICE


class Standing(msgspec.Struct, frozen=True):
    ready: bool
    store: str


class Answers:
    """Stands in for the pipeline: the model's name says what happens."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.started = asyncio.Event()
        self.cancelled = 0
        self.ended = asyncio.Event()
        """A request's task is over, one way or the other."""
        self.go_on = asyncio.Event()
        self.sent = 0
        """Frames that `flood` got rid of."""

    async def run(self, call: Call, sink: Exchange) -> None:
        self.calls.append(call)
        self.started.set()
        answer: Callable[[Call, Exchange], Awaitable[None]] = getattr(self, call.request.model, self.echo)
        try:
            await answer(call, sink)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.ended.set()

    async def echo(self, call: Call, sink: Exchange) -> None:
        """The request's own body, as JSON."""
        await sink.whole([(b"content-type", b"application/json")], call.body)

    async def wait(self, call: Call, sink: Exchange) -> None:
        """Nothing until it may go on."""
        await self.go_on.wait()
        await self.echo(call, sink)

    async def stream(self, call: Call, sink: Exchange) -> None:
        """A frame, a pause until it may go on, the end."""
        await sink.head(list(STREAM_HEAD))
        await sink.data(b"data: 1\n\n")
        await self.go_on.wait()
        await sink.data(b"data: [DONE]\n\n")
        await sink.end()

    async def flood(self, call: Call, sink: Exchange) -> None:
        """Frames without end."""
        await sink.head(list(STREAM_HEAD))
        while True:
            await sink.data(b"data: " + b"x" * 16384 + b"\n\n")
            self.sent += 1
            await asyncio.sleep(0)

    async def bug(self, call: Call, sink: Exchange) -> None:
        raise RuntimeError("a secret of the house")

    async def late_bug(self, call: Call, sink: Exchange) -> None:
        await sink.head(list(STREAM_HEAD))
        await sink.data(b"data: 1\n\n")
        raise RuntimeError("a secret of the house")

    async def no_store(self, call: Call, sink: Exchange) -> None:
        raise StoreUnavailable("disk of the house")

    async def busy(self, call: Call, sink: Exchange) -> None:
        raise Unavailable("full", retry_after=2.5)


class FakeServices:
    """What `create_app` wants, with `answers` in the pipeline's place."""

    def __init__(self) -> None:
        self.answers = Answers()
        self.pipeline = cast("Pipeline", self.answers)
        self.keys = cast("Keys", OneKey())
        self.stored = cast("StoredCompletions", None)
        self.catalog = Catalog([_model("echo", "gpt-4"), _model("library/poem:1")])
        self.standing = Standing(ready=True, store="ready")

        self.overview = cast("Overview", None)
        self.unknown_fields = UnknownFields()
        self.limits = Limits(MemoryCounters())
        self.reloaded: Reloaded | ApiError = Reloaded(models=("echo",))

    async def reload(self) -> Reloaded:
        if isinstance(self.reloaded, ApiError):
            raise self.reloaded
        return self.reloaded

    async def readiness(self) -> Standing:
        return self.standing


def _model(name: str, *aliases: str) -> Model:
    target = Target(id=name, backend=name, model=name, fingerprint="fp_test")
    return Model(id=name, aliases=aliases, targets=(target,), created=1, owned_by="test")


def chat_body(model: str = "echo", **fields: object) -> bytes:
    """A small valid request."""
    return msgspec.json.encode({"model": model, "messages": [{"role": "user", "content": "Hi"}], **fields})
