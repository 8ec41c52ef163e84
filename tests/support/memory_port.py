"""A connection without a socket: the protocol fed by hand, its time kept by hand."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.server import ServerState

from chatport.web.limits import HTTPConfig, HTTPLimits
from chatport.web.protocol import Connection
from chatport.web.turn import Application
from support.raw_http import Reply, parse_replies


class MemoryTransport(asyncio.Transport):
    """Keeps what is written; can pretend that the client does not read."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.written = bytearray()
        self.unsent = 0
        self.ended = False
        self.aborted = False
        self._closing = False
        self._loop = loop
        self.protocol: asyncio.Protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 1) if name in {"peername", "sockname"} else default

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        assert self._closing or not self.ended, "bytes after the end"
        if not self._closing:
            self.written += data

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        """As a socket's: what is written goes out first, so while a client takes nothing, nothing happens."""
        if not self._closing:
            self._closing = self.ended = True
            if not self.unsent:
                self._loop.call_soon(self.protocol.connection_lost, None)

    def abort(self) -> None:
        self.aborted = self._closing = self.ended = True
        self._loop.call_soon(self.protocol.connection_lost, None)

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def pause_reading(self) -> None:
        raise AssertionError("reading must never pause: the client's leaving would not be seen")


class MemoryPort:
    """One connection to an application, in memory."""

    def __init__(self, app: Application, limits: HTTPLimits | None = None, state: ServerState | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        self.state = state or ServerState()
        config = HTTPConfig(app, limits or HTTPLimits(), http=Connection)
        self.transport = MemoryTransport(self.loop)
        self.connection = Connection(config, self.state, {}, self.loop)
        self.transport.protocol = self.connection
        self.connection.connection_made(self.transport)

    def feed(self, data: bytes) -> None:
        """What a socket would do: nothing reaches a protocol whose transport is closing."""
        if not self.transport.is_closing():
            self.connection.data_received(data)

    def leave(self) -> None:
        """The client's FIN."""
        self.connection.eof_received()
        self.transport.close()

    async def settle(self) -> None:
        """Lets every task run as far as it can."""
        for _ in range(20):
            await asyncio.sleep(0)

    def sweep(self, later: float) -> None:
        """The server's look at late connections, `later` seconds from now."""
        self.connection.sweep(self.loop.time() + later)

    def closed(self) -> bool:
        """Whether our side of the connection has ended."""
        return self.transport.ended

    def aborted(self) -> bool:
        """Whether it ended with a reset."""
        return self.transport.aborted

    def replies(self, *methods: str) -> list[Reply]:
        """All replies so far."""
        return parse_replies(bytes(self.transport.written), ended=self.closed(), methods=methods)

    async def exchange(self, *pieces: bytes, methods: tuple[str, ...] = ()) -> list[Reply]:
        """Feeds the pieces, lets everything run, returns all replies so far."""
        for piece in pieces:
            self.feed(piece)
        await self.settle()
        return self.replies(*methods)
