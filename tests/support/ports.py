"""The web room's server on a real port, inside the test's own loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from chatport.web.server import Server, ServerSettings
from chatport.web.turn import Application
from support.raw_http import PATIENCE


class ServedPort:
    """A running server and its port."""

    def __init__(self, server: Server, number: int, task: asyncio.Task[None]) -> None:
        self.server = server
        self.number = number
        self.task = task

    async def idle(self) -> None:
        """Returns when no request runs any more."""
        async with asyncio.timeout(PATIENCE):
            while self.server.server_state.tasks:
                await asyncio.sleep(0.002)


@asynccontextmanager
async def serving_app(app: Application, settings: ServerSettings | None = None) -> AsyncIterator[ServedPort]:
    """Serves on a free loopback port until the block is left; then the server must end by itself, and soon."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    number: int = sock.getsockname()[1]
    server = Server(app, settings or ServerSettings(drain_seconds=1))
    task = asyncio.create_task(server.serve(sockets=[sock]))
    async with asyncio.timeout(PATIENCE):
        while not server.started:
            await asyncio.sleep(0.002)
    try:
        yield ServedPort(server, number, task)
    finally:
        server.should_exit = True
        async with asyncio.timeout(2 * PATIENCE):
            await task
