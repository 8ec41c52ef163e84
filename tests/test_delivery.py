"""How an answer leaves: one head, frames in order, signs of life, errors before and after the head."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from chatport.delivery import Delivery, Headers, as_api_error
from chatport.store.errors import StoreUnavailable
from chatport.wire import sse
from chatport.wire.errors import InternalError, InvalidRequest, Unavailable

HEAD: Headers = [(b"content-type", b"text/event-stream")]


class Wire:
    """Remembers what went out, and lets a test wait for it."""

    def __init__(self) -> None:
        self.sent: list[bytes | str] = []
        self._changed = asyncio.Event()

    def _note(self, what: bytes | str) -> None:
        self.sent.append(what)
        self._changed.set()

    async def head(self, headers: Headers) -> None:
        await asyncio.sleep(0)  # a slow client: whatever else wants to write must wait
        self._note("head")

    def now(self, data: bytes) -> bool:
        return False

    async def data(self, data: bytes) -> None:
        self._note(data)

    async def end(self) -> None:
        self._note("end")

    async def whole(self, headers: Headers, body: bytes) -> None:
        raise AssertionError("a delivery sends piece by piece")

    async def until(self, holds: Callable[[list[bytes | str]], bool]) -> None:
        async with asyncio.timeout(5):
            while not holds(self.sent):
                self._changed.clear()
                await self._changed.wait()


async def test_the_head_goes_out_once_before_the_first_frame() -> None:
    wire = Wire()
    async with Delivery(wire, lambda: HEAD) as delivery:
        assert not delivery.committed
        await delivery.send(b"1")
        await delivery.finish(b"2")
    assert wire.sent == ["head", b"1", b"2", "end"]


class SlowWire(Wire):
    """Takes one thing after the other, and its time for the head."""

    def __init__(self) -> None:
        super().__init__()
        self._busy = asyncio.Lock()

    async def head(self, headers: Headers) -> None:
        async with self._busy:
            await asyncio.sleep(0.05)
            self._note("head")

    async def data(self, data: bytes) -> None:
        async with self._busy:
            self._note(data)


async def test_a_sign_of_life_begun_while_the_head_waits_is_out_before_the_first_frame() -> None:
    wire = SlowWire()
    async with Delivery(wire, lambda: HEAD, commit_after=0.01, keepalive=0.01) as delivery:
        await delivery.send(b"1")
        await delivery.finish(b"2")
    assert wire.sent == ["head", sse.COMMENT, b"1", b"2", "end"]


async def test_an_error_before_the_head_is_raised_and_nothing_goes_out() -> None:
    wire = Wire()
    with pytest.raises(InvalidRequest):
        async with Delivery(wire, lambda: HEAD) as delivery:
            await delivery.fail(InvalidRequest("no"))
    assert wire.sent == []


async def test_an_error_after_the_head_is_one_frame_and_the_end() -> None:
    wire = Wire()
    error = Unavailable("gone")
    async with Delivery(wire, lambda: HEAD) as delivery:
        await delivery.send(b"1")
        await delivery.fail(error)
    assert wire.sent == ["head", b"1", sse.error_frame(error), "end"]


async def test_a_long_silence_commits_the_head_and_gives_signs_of_life() -> None:
    wire = Wire()
    async with Delivery(wire, lambda: HEAD, commit_after=0.01, keepalive=0.01) as delivery:
        await wire.until(lambda sent: sent.count(sse.COMMENT) >= 3)
        assert delivery.committed
        await delivery.finish(b"1")
    assert wire.sent[:2] == ["head", sse.COMMENT]
    assert wire.sent[-2:] == [b"1", "end"]
    assert wire.sent.count("head") == 1


async def test_an_error_after_a_sign_of_life_travels_in_the_stream() -> None:
    wire = Wire()
    async with Delivery(wire, lambda: HEAD, commit_after=0.01, keepalive=60) as delivery:
        await wire.until(lambda sent: sse.COMMENT in sent)
        await delivery.fail(InternalError())
    assert wire.sent == ["head", sse.COMMENT, sse.error_frame(InternalError()), "end"]


async def test_frames_that_flow_need_no_sign_of_life() -> None:
    wire = Wire()
    async with Delivery(wire, lambda: HEAD, commit_after=0.05, keepalive=30) as delivery:
        await delivery.send(b"1")
        await asyncio.sleep(0.1)  # the timer fires in here, and sees that a frame went out
        await delivery.finish(b"2")
    assert sse.COMMENT not in wire.sent


class SlowEnd(Wire):
    """A client that takes its time over the last frame."""

    async def data(self, data: bytes) -> None:
        if data == sse.DONE or b'"error"' in data:
            await asyncio.sleep(0.05)
        await super().data(data)


@pytest.mark.parametrize("fails", [False, True])
async def test_no_sign_of_life_follows_the_last_frame(fails: bool) -> None:
    wire = SlowEnd()
    async with Delivery(wire, lambda: HEAD, commit_after=0.01, keepalive=0.01) as delivery:
        await delivery.send(b"1")
        await wire.until(lambda sent: sse.COMMENT in sent)
        if fails:
            await delivery.fail(InternalError())
        else:
            await delivery.finish(sse.DONE)
    assert wire.sent[-2:] == [sse.error_frame(InternalError()) if fails else sse.DONE, "end"]


async def test_after_leaving_no_timer_is_left_behind() -> None:
    wire = Wire()
    async with Delivery(wire, lambda: HEAD, commit_after=0.01, keepalive=0.01) as delivery:
        await delivery.send(b"1")
    before = list(wire.sent)
    await asyncio.sleep(0.05)
    assert wire.sent == before


class ReadyWire(Wire):
    """Takes a frame at once, unless it is told to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = False

    def now(self, data: bytes) -> bool:
        if not self.waits:
            self._note(data)
        return not self.waits


async def test_what_can_leave_at_once_does_and_nothing_overtakes_what_waits() -> None:
    wire = ReadyWire()
    async with Delivery(wire, lambda: HEAD, keep=100) as delivery:
        assert not delivery.push(b"1"), "the head must go out first"
        assert not delivery.push(b"2")
        await delivery.catch_up()
        assert delivery.push(b"3")
        wire.waits = True
        assert not delivery.push(b"4")
        wire.waits = False
        assert not delivery.push(b"5"), "one is waiting already"
        await delivery.catch_up()
        assert delivery.push(b"6")
        await delivery.finish(b"7")
    assert wire.sent == ["head", b"1", b"2", b"3", b"4", b"5", b"6", b"7", "end"]
    assert delivery.copy == [b"1", b"2", b"3", b"4", b"5", b"6", b"7"]


async def test_a_frame_waits_for_a_sign_of_life_that_is_on_its_way() -> None:
    class SlowComment(ReadyWire):
        async def data(self, data: bytes) -> None:
            await asyncio.sleep(0.02)
            await super().data(data)

    wire = SlowComment()
    async with Delivery(wire, lambda: HEAD, commit_after=0.01, keepalive=60) as delivery:
        async with asyncio.timeout(2):
            while delivery._beat is None:
                await asyncio.sleep(0)
        assert not delivery.push(b"1")
        await delivery.catch_up()
    assert wire.sent == ["head", sse.COMMENT, b"1"]


async def test_a_copy_holds_the_frames_but_no_comments() -> None:
    wire = Wire()
    async with Delivery(wire, lambda: HEAD, commit_after=0.01, keepalive=0.01, keep=100) as delivery:
        await wire.until(lambda sent: sse.COMMENT in sent)
        await delivery.send(b"1")
        await delivery.send(b"2")
    assert delivery.copy == [b"1", b"2"]


async def test_an_answer_over_the_limit_is_sent_but_not_copied() -> None:
    wire = Wire()
    async with Delivery(wire, lambda: HEAD, keep=3) as delivery:
        await delivery.send(b"123")
        copied = list(delivery.copy or ())
        await delivery.send(b"4")
        await delivery.send(b"5")
    assert (copied, delivery.copy) == ([b"123"], None)
    assert wire.sent == ["head", b"123", b"4", b"5"]


def test_a_silent_store_is_a_503_and_a_bug_a_500_that_says_nothing() -> None:
    assert isinstance(as_api_error(StoreUnavailable("disk full")), Unavailable)
    hidden = as_api_error(ValueError("secret"))
    assert isinstance(hidden, InternalError)
    assert "secret" not in hidden.message
