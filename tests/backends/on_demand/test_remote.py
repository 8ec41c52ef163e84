"""A backend at the other end of a pipe, without the pipe: the suite, and what only goes wrong at a distance."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from chatport.backends.base import Backend
from chatport.backends.on_demand.frames import (
    WINDOW,
    Bounded,
    Cancel,
    Failed,
    Frames,
    Logged,
    Message,
    Said,
    frame,
    from_model,
    to_model,
)
from chatport.backends.on_demand.host import Host
from chatport.backends.on_demand.remote import RemoteBackend
from chatport.backends.scripted import FEATURES, ScriptedBackend
from chatport.targets import Bound, Target
from chatport.telemetry import REQUEST_ID
from chatport.wire.chat import ChatChunk, ChatRequest
from chatport.wire.errors import ContextExceeded, InternalError, RateLimited, Unavailable
from support.backend_suite import BackendSuite, ask, completed, content

TARGET = Target(id="t", backend="b", model="m", features=FEATURES, context=2000)
PIECE = 37
"""Bytes that arrive at once."""


class Distant(RemoteBackend):
    """Both ends, with bytes between them that arrive a little later and in small pieces."""

    def __init__(self, backend: Backend) -> None:
        super().__init__("far", lambda message: self._carry(message, self._there))
        self.near_loop = asyncio.get_running_loop()
        self.host = Host(backend, lambda message: self._carry(message, self._here))
        self.sent: list[Message] = []
        self._frames = Frames(), Frames()

    def _carry(self, message: Message, arrive: Any) -> None:
        self.sent.append(message)
        data = frame(message)
        for at in range(0, len(data), PIECE):
            self.near_loop.call_soon(arrive, data[at : at + PIECE])

    def _there(self, data: bytes) -> None:
        for received in self._frames[0].feed(data):
            self.host.take(to_model(received))

    def _here(self, data: bytes) -> None:
        for received in self._frames[1].feed(data):
            self.take(from_model(received))

    def count(self, kind: type[Message]) -> int:
        return sum(isinstance(message, kind) for message in self.sent)


class TestSuite(BackendSuite):
    @pytest.fixture
    async def backend(self) -> Backend:
        return Distant(ScriptedBackend(["春", "天", " came", ", ", "and \x00", "🌱", "!\n"], delay_ms=1))

    @pytest.fixture
    def target(self) -> Target:
        return TARGET


class Endless(ScriptedBackend):
    """Says `a` for ever, as fast as it is listened to."""

    async def bound(self, target: Target, request: ChatRequest) -> Bound:
        return Bound(prompt_tokens=1, output_tokens=None, counted_by="exact")

    @asynccontextmanager
    async def stream(
        self, target: Target, request: ChatRequest, bound: Bound
    ) -> AsyncIterator[AsyncIterator[ChatChunk]]:
        self.in_flight += 1
        try:
            yield self._endless()
        finally:
            self.in_flight -= 1

    async def _endless(self) -> AsyncIterator[ChatChunk]:
        while True:
            yield ChatChunk(id="", created=0, model="m", choices=[], system_fingerprint="")
            await asyncio.sleep(0)


class Failing(ScriptedBackend):
    """Fails as nobody expected."""

    async def bound(self, target: Target, request: ChatRequest) -> Bound:
        raise ZeroDivisionError("a secret of the house")


async def test_a_slow_reader_holds_up_its_own_answer_only() -> None:
    far = Distant(endless := Endless())
    request = ask()
    bound = await far.bound(TARGET, request)
    async with far.stream(TARGET, request, bound) as slow, far.stream(TARGET, request, bound) as fast:
        await anext(slow)
        for _ in range(10 * WINDOW):
            await anext(fast)
        assert endless.in_flight == 2
        said_to_slow = sum(isinstance(message, Said) and message.call == 2 for message in far.sent)
        assert said_to_slow == WINDOW, "as many as may be under way, and no more"
    assert endless.in_flight == 0
    assert far.in_flight == 0


async def test_leaving_awaits_that_the_other_end_has_let_go() -> None:
    far = Distant(endless := Endless())
    request = ask()
    async with far.stream(TARGET, request, await far.bound(TARGET, request)) as chunks:
        await anext(chunks)
    assert (endless.in_flight, far.count(Cancel)) == (0, 1)


async def test_a_whole_answer_is_not_cancelled() -> None:
    far = Distant(ScriptedBackend(["a"]))
    assert content(await completed(far, TARGET, ask())) == "a"
    assert far.count(Cancel) == 0


async def test_an_answer_that_is_not_awaited_any_more_is_cancelled() -> None:
    far = Distant(scripted := ScriptedBackend(["a"], delay_ms=60_000))
    asking = asyncio.create_task(far.complete(TARGET, ask(), await far.bound(TARGET, ask())))
    while not scripted.in_flight:
        await asyncio.sleep(0.001)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert scripted.in_flight == 0


@pytest.mark.parametrize("after", [0, 2])
async def test_an_error_comes_over_as_it_is(after: int) -> None:
    far = Distant(ScriptedBackend(["a", "b", "c"], fail_status=429, fail_after=after))

    async def read_all() -> None:
        async with far.stream(TARGET, ask(), await far.bound(TARGET, ask())) as chunks:
            async for _ in chunks:
                pass

    with pytest.raises(RateLimited) as caught:
        await read_all()
    assert caught.value.retry_after == 1.0
    assert far.count(Said) == after


async def test_a_refusal_of_the_bound_comes_over_too() -> None:
    with pytest.raises(ContextExceeded, match="2000 tokens"):
        await Distant(ScriptedBackend()).bound(TARGET, ask("word " * 3000))


async def test_what_nobody_expected_is_logged_there_and_told_as_our_fault(caplog: pytest.LogCaptureFixture) -> None:
    far = Distant(Failing())
    token = REQUEST_ID.set("req_7")
    with pytest.raises(InternalError) as caught:
        await far.bound(TARGET, ask())
    REQUEST_ID.reset(token)
    assert "secret" not in caught.value.message
    (line,) = caplog.records
    assert line.exc_info is not None
    assert line.exc_info[0] is ZeroDivisionError
    assert "req_7" in {getattr(message, "request_id", "") for message in far.sent}


async def test_a_line_of_the_other_end_is_logged_under_its_request(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[str] = []

    class Watching(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(f"{record.levelname} {record.getMessage()} {REQUEST_ID.get()}")

    logger, watching = logging.getLogger("chatport"), Watching()
    logger.addHandler(watching)
    try:
        RemoteBackend("far", lambda _: None).take(Logged(logging.ERROR, "it broke", "req_9"))
    finally:
        logger.removeHandler(watching)
    assert seen == ["ERROR far: it broke req_9"]
    assert REQUEST_ID.get() == ""


async def test_when_the_other_end_is_lost_all_hear_of_it() -> None:
    far = Distant(Endless())
    request = ask()
    bound = await far.bound(TARGET, request)
    async with far.stream(TARGET, request, bound) as chunks:
        await anext(chunks)
        far.lose("The process has ended (SIGKILL).")
        with pytest.raises(Unavailable, match="SIGKILL") as caught:
            async for _ in chunks:
                pass
    assert caught.value.retry_after is not None
    with pytest.raises(Unavailable, match="SIGKILL"):
        await far.bound(TARGET, request)
    await far.host.leave()


async def test_words_about_a_call_that_is_over_are_ignored() -> None:
    far = Distant(ScriptedBackend(["a"]))
    await completed(far, TARGET, ask())
    far.host.take(Cancel(1))
    far.take(Bounded(1, Bound(prompt_tokens=1, output_tokens=1, counted_by="exact")))
    assert far.count(Failed) == 0
