"""A turn, with an application of our own on it: heads that can't be forged, replies that wait, and their end."""

from __future__ import annotations

import pytest

from chatport.web.turn import Turn, response_head
from support.memory_port import MemoryPort
from support.raw_http import request


def test_a_head_is_its_lines() -> None:
    assert response_head(200, [(b"a", b"1"), (b"b", b"")]) == b"HTTP/1.1 200 OK\r\na: 1\r\nb: \r\n\r\n"


@pytest.mark.parametrize("hostile", [b"\r", b"\n", b"\0", b"\r\n", b"\r\nx: y"])
@pytest.mark.parametrize("place", ["name", "value"])
@pytest.mark.parametrize("form", [b"%b", b"a%b", b"%ba", b"a%ba"])
def test_no_header_ends_its_line_early(hostile: bytes, place: str, form: bytes) -> None:
    text = form % hostile
    header = (text, b"b") if place == "name" else (b"b", text)
    with pytest.raises(ValueError, match="control character"):
        response_head(200, [(b"before", b"1"), header, (b"after", b"2")])


async def test_a_head_that_is_refused_may_be_followed_by_another() -> None:
    async def application(turn: Turn) -> None:
        with pytest.raises(ValueError, match="control character"):
            await turn.reply(200, [(b"a", b"\n")], b"")
        assert turn.status == 0
        await turn.reply(500, [], b"")
        assert turn.status == 500

    (reply,) = await MemoryPort(application).exchange(request())
    assert (reply.status, reply.whole) == (500, True)


@pytest.mark.parametrize("begun", [False, True])
async def test_a_turn_that_ends_without_a_whole_reply_is_cut_off(begun: bool) -> None:
    async def application(turn: Turn) -> None:
        if begun:
            await turn.head(200, [])
            await turn.data(b"half")

    port = MemoryPort(application)
    port.feed(request())
    assert len(port.state.tasks) == 1
    await port.settle()
    assert port.aborted()
    assert port.state.tasks == set()
    assert port.transport.written.endswith(b"4\r\nhalf\r\n" if begun else b"")


async def test_a_reply_waits_while_the_client_does_not_read() -> None:
    async def application(turn: Turn) -> None:
        await turn.head(200, [])
        for piece in (b"1", b"2"):
            await turn.data(piece)
        await turn.end()

    port = MemoryPort(application)
    port.connection.pause_writing()
    await port.exchange(request())
    assert port.transport.written == b""
    port.connection.resume_writing()
    await port.settle()
    (reply,) = port.replies()
    assert (reply.body, reply.whole) == (b"12", True)


async def test_what_a_client_can_not_take_now_is_not_taken() -> None:
    taken = []

    async def application(turn: Turn) -> None:
        await turn.head(200, [])
        taken.append(turn.now(b"1"))
        port.connection.pause_writing()
        taken.append(turn.now(b"2"))
        port.connection.resume_writing()
        taken.append(turn.now(b"3"))
        await turn.data(b"")  # an empty chunk would be the end
        await turn.end()

    port = MemoryPort(application)
    (reply,) = await port.exchange(request())
    assert taken == [True, False, True]
    assert (reply.body, reply.whole) == (b"13", True)


async def test_nothing_is_written_to_a_client_that_left_while_it_was_waited_for() -> None:
    reached = []

    async def application(turn: Turn) -> None:
        try:
            await turn.reply(200, [], b"late")
        finally:
            await turn.reply(200, [], b"later still")
            reached.append(turn.complete)

    port = MemoryPort(application)
    port.connection.pause_writing()
    await port.exchange(request())
    port.leave()
    port.connection.resume_writing()
    await port.settle()
    assert reached == [False]
    assert port.transport.written == b""
