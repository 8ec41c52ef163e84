"""A streamed answer poured: handed on in the connection's callback, with breaks, faults, and clients that leave."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from chatport.backends.base import PouredChunks, pour
from chatport.backends.http.connection import Timeouts
from chatport.backends.http.dial import Origin
from chatport.backends.http.pool import PoolLimits, Pools
from chatport.backends.openai import OpenAIBackend, OpenAISettings
from chatport.targets import Target
from chatport.telemetry import REQUEST_ID
from chatport.wire.chat import ChatChunk
from chatport.wire.errors import UpstreamFailed
from support.backend_suite import ask
from support.upstreams import (
    CHUNKED_END,
    STREAM_HEAD,
    Behaviour,
    answering,
    event,
    then_closing,
    then_hanging,
    upstream,
)

TARGET = Target(id="far", backend="far", model="far-model")
SOON = Timeouts(connect=2, send=2, first_byte=1, between=1, total=5)


def word(text: str | None, finish: str | None = None) -> bytes:
    return event({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]})


WORDS = [word(f"{number} ") for number in range(6)]
END = [word(None, "stop"), event(b"[DONE]"), CHUNKED_END]


class Taking:
    """Takes chunks, and says no after each so many (0: never)."""

    def __init__(self, every: int = 0) -> None:
        self.chunks: list[ChatChunk] = []
        self.asked_by: set[str] = set()
        self._every = every

    def __call__(self, chunk: ChatChunk) -> bool:
        self.chunks.append(chunk)
        self.asked_by.add(REQUEST_ID.get())
        return not self._every or len(self.chunks) % self._every > 0

    @property
    def text(self) -> str:
        choices = [choice for chunk in self.chunks for choice in chunk.choices]
        return "".join(str(choice.delta.content or "") for choice in choices)


@asynccontextmanager
async def streaming(behaviour: Behaviour) -> AsyncIterator[AsyncIterator[ChatChunk]]:
    pools = Pools(PoolLimits(sweep_seconds=0.02))
    try:
        async with upstream(behaviour) as server:
            port = int(server.url.rpartition(":")[2].partition("/")[0])
            pool = pools.to(Origin(scheme="http", host="127.0.0.1", port=port))
            backend = OpenAIBackend(OpenAISettings(base_url=server.url, timeouts=SOON), pool)
            request = ask("hi", stream=True)
            async with backend.stream(TARGET, request, await backend.bound(TARGET, request)) as chunks:
                yield chunks
    finally:
        pools.close()


@pytest.mark.parametrize("together", [True, False], ids=["in one piece", "apart"])
@pytest.mark.parametrize("every", [1, 2, 100])
async def test_breaks_lose_nothing(every: int, together: bool) -> None:
    said = WORDS + END
    behaviour = answering(STREAM_HEAD + b"".join(said)) if together else answering(STREAM_HEAD, *said, pause=0.005)
    take = Taking(every)
    async with streaming(behaviour) as chunks:
        assert isinstance(chunks, PouredChunks)
        take(await anext(chunks))
        while await pour(chunks, take):
            pass
        assert not await pour(chunks, take), "it stays at its end"
        with pytest.raises(StopAsyncIteration):
            await anext(chunks)
    assert take.text == "0 1 2 3 4 5 "
    assert take.chunks[-1].usage


async def test_what_was_said_before_a_fault_is_handed_on_before_it() -> None:
    take = Taking()
    async with streaming(then_closing(STREAM_HEAD, *WORDS)) as chunks:
        with pytest.raises(UpstreamFailed):
            await pour(chunks, take)
    assert take.text == "0 1 2 3 4 5 "


async def test_garbage_comes_behind_what_is_none() -> None:
    take = Taking()
    async with streaming(answering(STREAM_HEAD + WORDS[0] + event(b"{nonsense") + WORDS[1])) as chunks:
        with pytest.raises(UpstreamFailed):
            await pour(chunks, take)
    assert take.text == "0 "


async def test_what_take_raises_is_raised_to_who_pours(caplog: pytest.LogCaptureFixture) -> None:
    def take(_: ChatChunk) -> bool:
        raise ZeroDivisionError

    async with streaming(then_hanging(STREAM_HEAD, *WORDS)) as chunks:
        await anext(chunks)
        with pytest.raises(ZeroDivisionError):
            await pour(chunks, take)
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_a_fault_keeps_nothing_in_memory() -> None:
    """An outage has thousands of them, and nobody collects circles meanwhile."""
    gc.collect()
    gc.disable()
    try:
        async with streaming(then_closing(STREAM_HEAD, *WORDS)) as chunks:
            with suppress(UpstreamFailed):
                await pour(chunks, Taking())
            left = weakref.ref(chunks)
            del chunks
        await asyncio.sleep(0)
        assert left() is None
    finally:
        gc.enable()


async def test_who_leaves_is_called_no_more() -> None:
    take = Taking()
    async with streaming(answering(STREAM_HEAD, *WORDS, *END, pause=0.02)) as chunks:
        pouring = asyncio.create_task(pour(chunks, take))
        async with asyncio.timeout(2):
            while not take.chunks:
                await asyncio.sleep(0)
        pouring.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pouring
        taken = len(take.chunks)
        await asyncio.sleep(0.1)
        assert len(take.chunks) == taken


async def test_each_chunk_is_taken_on_behalf_of_its_request() -> None:
    """A warning that is logged there names it."""
    take = Taking()
    token = REQUEST_ID.set("req_poured")
    async with streaming(answering(STREAM_HEAD, *WORDS, *END, pause=0.005)) as chunks:
        assert not await pour(chunks, take)
    REQUEST_ID.reset(token)
    assert take.asked_by == {"req_poured"}


async def test_chunks_of_any_other_backend_are_poured_too() -> None:
    async def made() -> AsyncIterator[ChatChunk]:
        for _ in range(4):
            yield ChatChunk(id="", created=0, model="", choices=[], system_fingerprint="")

    take, chunks = Taking(every=3), made()
    assert await pour(chunks, take)
    assert len(take.chunks) == 3
    assert not await pour(chunks, take)
    assert len(take.chunks) == 4
