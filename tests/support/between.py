"""A network between the program and its database, which a test can stop: bytes are held back, or connections cut."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from sqlalchemy import make_url


class Between:
    """Passes every byte on, until told otherwise."""

    def __init__(self, host: str, port: int) -> None:
        self._to = (host, port)
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def stop(self) -> None:
        """From now on nothing gets through, and nobody is told."""
        self._flowing.clear()

    def go_on(self) -> None:
        """Everything that was held back arrives."""
        self._flowing.set()

    def cut(self) -> None:
        """Every connection ends at once; new ones are let through."""
        for writer in self._writers:
            writer.transport.abort()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        there, back = await asyncio.open_connection(*self._to)
        self._writers |= {writer, back}
        ways = [asyncio.create_task(self._pass(*way)) for way in ((reader, back), (there, writer))]
        self._tasks.update(ways)
        for way in ways:
            way.add_done_callback(self._tasks.discard)
        await asyncio.wait(ways)
        self._writers -= {writer, back}

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()
        await self._flowing.wait()
        writer.close()

    async def close(self) -> None:
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def between(address: str) -> AsyncIterator[tuple[Between, str]]:
    """A network in front of the database there, and the database's address behind it."""
    url = make_url(address)
    network = Between(url.host or "127.0.0.1", url.port or 5432)
    server = await asyncio.start_server(network.accept, "127.0.0.1", 0)
    try:
        port = server.sockets[0].getsockname()[1]
        yield network, url.set(host="127.0.0.1", port=port).render_as_string(hide_password=False)
    finally:
        server.close()
        await network.close()
