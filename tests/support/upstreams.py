"""A real upstream on loopback that does what a test tells it: answers by the byte, trickles, lies, hangs, resets."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import msgspec

from chatport.backends.http.connection import Connection, Timeouts
from chatport.backends.http.pool import Pool

PATIENCE = 5.0


@asynccontextmanager
async def asking(pool: Pool, request: bytes, timeouts: Timeouts) -> AsyncIterator[Connection]:
    """The answer to a request, given back to the pool behind the context."""
    answer = await pool.ask(request, timeouts)
    try:
        yield answer
    finally:
        pool.give_back(answer)


@dataclass
class Asked:
    """One request as it arrived."""

    line: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


class Wire:
    """The upstream's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.gone = asyncio.Event()
        """The other side has closed, or reset."""

    async def request(self) -> Asked | None:
        """The next request, None when there is none."""
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            return None
        return Asked(first, headers, body)

    async def send(self, *pieces: bytes, pause: float = 0.0) -> None:
        """Each piece on its way before the next."""
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            await asyncio.sleep(pause)

    async def until_gone(self) -> None:
        """Waits until the other side goes."""
        with suppress(ConnectionError):
            while await self.reader.read(65536):
                pass
        self.gone.set()

    def reset(self) -> None:
        """Ends with a RST."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Behaviour = Callable[[Wire, Asked], Awaitable[None]]


@dataclass
class Upstream:
    """A running one: where it is, and what it has seen."""

    port: int
    connections: int = 0
    asked: list[Asked] = field(default_factory=list)
    wires: list[Wire] = field(default_factory=list)
    scheme: str = "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/v1"

    async def all_gone(self, within: float = PATIENCE) -> None:
        """Returns when the other side has left every connection."""
        async with asyncio.timeout(within):
            for wire in self.wires:
                await wire.gone.wait()


@asynccontextmanager
async def upstream(*behaviours: Behaviour, tls: ssl.SSLContext | None = None) -> AsyncIterator[Upstream]:
    """Answers the first request by the first behaviour, and so on; the last one stays. Leaving ends all of it."""
    state = Upstream(0, scheme="https" if tls else "http")

    async def talk(wire: Wire) -> None:
        state.connections += 1
        state.wires.append(wire)
        while (asked := await wire.request()) is not None:
            state.asked.append(asked)
            await behaviours[min(len(state.asked), len(behaviours)) - 1](wire, asked)

    async with listening(talk, tls=tls) as state.port:
        yield state


@asynccontextmanager
async def listening(
    talk: Callable[[Wire], Awaitable[None]], *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """A port on which every connection is talked to. Leaving ends all of it."""
    tasks: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        wire = Wire(reader, writer)
        try:
            await talk(wire)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            wire.gone.set()
            writer.close()
            tasks.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def whole(body: bytes, status: str = "200 OK", *headers: str, content_type: str = "application/json") -> bytes:
    """A reply with its length."""
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {content_type}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def answering(*pieces: bytes, pause: float = 0.0) -> Behaviour:
    """Sends these pieces, whatever was asked."""

    async def behave(wire: Wire, asked: Asked) -> None:
        await wire.send(*pieces, pause=pause)

    return behave


def then_closing(*pieces: bytes) -> Behaviour:
    async def behave(wire: Wire, asked: Asked) -> None:
        await wire.send(*pieces)
        wire.writer.close()

    return behave


def then_resetting(*pieces: bytes) -> Behaviour:
    async def behave(wire: Wire, asked: Asked) -> None:
        await wire.send(*pieces, pause=0.02)
        wire.reset()

    return behave


def then_hanging(*pieces: bytes) -> Behaviour:
    async def behave(wire: Wire, asked: Asked) -> None:
        await wire.send(*pieces)
        await wire.until_gone()

    return behave


STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNKED_END = b"0\r\n\r\n"


def chunked(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(value: Any) -> bytes:
    """One chunk of a stream with one event in it; bytes go as they are."""
    return chunked(b"data: %b\n\n" % (value if isinstance(value, bytes) else msgspec.json.encode(value)))
