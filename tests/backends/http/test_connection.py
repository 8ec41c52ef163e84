"""A connection without a socket: every split of every kind of answer, and everything that is none."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from chatport.backends.http.connection import MAX_HEAD, READ_AHEAD, Connection, Timeouts
from chatport.backends.http.faults import Broken, Fault, TimedOut, TooLarge
from support.memory_port import MemoryTransport

LENGTH = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\nhello world"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nTrailer: t\r\n\r\n"
)
ANNOUNCED = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + LENGTH
CLOSING = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 11\r\n\r\nhello world"
UNTIL_THE_END = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nhello world"
EMPTY = b"HTTP/1.1 204 No Content\r\n\r\n"


class UpstreamTransport(MemoryTransport):
    """The memory port's transport, for the other direction: reading may pause, and water marks can be set."""

    reading = True

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert (high, low) == (1, 0)

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class Line:
    """A connection, asked once, and what arrives on it."""

    def __init__(self, timeouts: Timeouts | None = None) -> None:
        loop = asyncio.get_running_loop()
        self.connection = Connection()
        self.transport = UpstreamTransport(loop)
        self.transport.protocol = self.connection
        self.connection.connection_made(self.transport)
        self.connection.begin(b"GET / HTTP/1.1\r\n\r\n", timeouts or Timeouts())

    def feed(self, *pieces: bytes) -> None:
        for piece in pieces:
            if not self.transport.is_closing():
                self.connection.data_received(piece)

    async def head(self) -> None:
        while self.connection.status == 0:
            await self.connection.more()

    async def answer(self, limit: int = 1000) -> tuple[int, bytes]:
        await self.head()
        return self.connection.status, await self.connection.body(limit)

    async def fault(self) -> Fault:
        with pytest.raises(Fault) as caught:
            await asyncio.wait_for(self.answer(), 1)
        return caught.value


@pytest.mark.parametrize(
    ("answer", "body", "kept"),
    [
        (LENGTH, b"hello world", True),
        (CHUNKED, b"hello world", True),
        (ANNOUNCED, b"hello world", True),
        (CLOSING, b"hello world", False),
        (EMPTY, b"", True),
    ],
    ids=["length", "chunked", "announced", "closing", "empty"],
)
async def test_at_every_split(answer: bytes, body: bytes, kept: bool) -> None:
    for at in range(len(answer) + 1):
        line = Line()
        line.feed(*filter(None, (answer[:at], answer[at:])))
        assert (await line.answer())[1] == body
        assert line.connection.release() is kept
        assert line.connection.usable() is kept


async def test_byte_by_byte_and_again() -> None:
    line = Line()
    for _ in range(3):
        line.feed(*(LENGTH[at : at + 1] for at in range(len(LENGTH))))
        assert await line.answer() == (200, b"hello world")
        assert line.connection.release()
        line.connection.begin(b"GET / HTTP/1.1\r\n\r\n{}", Timeouts())
    assert bytes(line.transport.written).endswith(b"GET / HTTP/1.1\r\n\r\n{}")


async def test_a_body_that_ends_with_the_connection() -> None:
    line = Line()
    line.feed(UNTIL_THE_END)
    line.connection.connection_lost(None)
    assert await line.answer() == (200, b"hello world")
    assert not line.connection.release()


@pytest.mark.parametrize("answer", [LENGTH, CHUNKED], ids=["length", "chunked"])
async def test_an_answer_that_is_cut_anywhere_is_broken(answer: bytes) -> None:
    for at in range(len(answer)):
        line = Line()
        line.feed(*filter(None, [answer[:at]]))
        line.connection.connection_lost(None)
        assert isinstance(await line.fault(), Broken)
        assert line.connection.answered == (at > 0)


async def test_a_reset_ends_even_what_would_end_with_the_connection() -> None:
    line = Line()
    line.feed(UNTIL_THE_END)
    line.connection.connection_lost(ConnectionResetError("reset"))
    assert isinstance(await line.fault(), Broken)


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"<html>no</html>\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nhello\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    ],
    ids=["ssh", "html", "two-lengths", "negative", "no-chunk", "upgrade"],
)
async def test_what_is_no_http(answer: bytes) -> None:
    line = Line()
    line.feed(answer)
    assert isinstance(await line.fault(), Broken)
    assert line.transport.aborted


@pytest.mark.parametrize(
    "endless", [b"X-Pad: " + b"y" * MAX_HEAD, b"\r\n2;" + b"e" * 2 * MAX_HEAD], ids=["header", "chunk-extension"]
)
async def test_what_never_ends_is_cut(endless: bytes) -> None:
    line = Line()
    start = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
    line.feed(start, *(endless[at : at + 4096] for at in range(0, len(endless), 4096)), b"zz")
    assert isinstance(await line.fault(), TooLarge)


async def test_a_body_over_the_limit() -> None:
    line = Line()
    line.feed(LENGTH)
    with pytest.raises(TooLarge, match="more than 10 bytes"):
        await line.answer(limit=10)


async def test_bytes_behind_the_answer_end_the_connection() -> None:
    line = Line()
    line.feed(LENGTH + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
    assert await line.answer() == (200, b"hello world")
    assert not line.connection.release()


async def test_bytes_that_nobody_asked_for_end_the_connection() -> None:
    line = Line()
    line.feed(LENGTH)
    await line.answer()
    assert line.connection.release()
    line.feed(LENGTH)
    assert line.transport.aborted
    assert not line.connection.usable()


async def test_a_reader_that_is_slow_pauses_the_upstream() -> None:
    line = Line()
    line.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n", b"x" * (READ_AHEAD + 1))
    assert not line.transport.reading
    line.connection.sweep(asyncio.get_running_loop().time() + 400)
    await line.head()
    assert len(line.connection.take()) == READ_AHEAD + 1, "a slow reader is no silence"
    assert line.transport.reading


TIMEOUTS = Timeouts(send=1, first_byte=10, between=100, total=1000)


@pytest.mark.parametrize(
    ("unsent", "arrived", "patience", "phase"),
    [
        (True, b"", 1, "send"),
        (False, b"", 10, "first byte"),
        (False, LENGTH[:20], 100, "next byte"),
        (False, LENGTH[:-2], 100, "next byte"),
    ],
    ids=["send", "first-byte", "head", "body"],
)
async def test_each_phase_has_its_time(unsent: bool, arrived: bytes, patience: float, phase: str) -> None:
    line = Line.__new__(Line)
    Line.__init__(line, TIMEOUTS)
    if unsent:
        line.connection.pause_writing()
        line.connection.begin(b"POST / HTTP/1.1\r\n\r\nx", TIMEOUTS)
    now = asyncio.get_running_loop().time()
    line.feed(*filter(None, [arrived]))
    line.connection.sweep(now + patience * 0.9)
    assert not line.transport.aborted
    line.connection.sweep(now + patience * 1.1 + 0.1)
    fault = await line.fault()
    assert isinstance(fault, TimedOut)
    assert fault.phase == phase
    assert line.transport.aborted


async def test_the_first_byte_is_waited_for_from_when_the_request_has_left() -> None:
    line = Line(TIMEOUTS)
    line.connection.pause_writing()
    line.connection.begin(b"POST / HTTP/1.1\r\n\r\nx", TIMEOUTS)
    line.connection.resume_writing()
    line.connection.sweep(asyncio.get_running_loop().time() + 9)
    assert not line.transport.aborted


async def test_a_trickle_ends_with_the_total() -> None:
    line = Line(TIMEOUTS)
    line.feed(LENGTH[:-2])
    now = asyncio.get_running_loop().time()
    line.connection.deadline = now + 5000
    line.connection.sweep(now + 1001)
    fault = await line.fault()
    assert isinstance(fault, TimedOut)
    assert fault.phase == "whole answer"


async def test_an_answer_may_be_hurried() -> None:
    line = Line(TIMEOUTS)
    line.feed(LENGTH[:-2])
    line.connection.hurry(2)
    line.feed(LENGTH[-2:-1])
    line.connection.sweep(asyncio.get_running_loop().time() + 3)
    assert isinstance(await line.fault(), TimedOut)


async def test_an_end_that_nobody_reads_is_waited_for_a_moment() -> None:
    line = Line()
    ended: list[Connection] = []
    line.feed(CHUNKED[:-5])
    line.connection.finish()
    assert line.connection.may_linger()
    line.connection.linger(ended.append)
    line.feed(CHUNKED[-5:])
    assert ended == [line.connection]
    assert line.connection.release()


@pytest.mark.parametrize("how", ["late", "flood", "lost"])
async def test_an_end_that_does_not_come_closes(how: str) -> None:
    line: Any = Line()
    ended: list[Connection] = []
    line.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
    line.connection.finish()
    line.connection.linger(ended.append)
    if how == "late":
        line.connection.sweep(asyncio.get_running_loop().time() + 1.1)
    elif how == "flood":
        line.feed(b"x" * (READ_AHEAD + 1))
    else:
        line.connection.connection_lost(None)
    assert ended == [line.connection]
    assert not line.connection.release()
