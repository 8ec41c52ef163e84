"""Runs an application on a bound socket until a signal ends it.

SIGTERM or Ctrl-C: the port is closed, idle connections too, what is being answered is answered for up to
`drain_seconds`. A second signal ends that at once. Either way each request's task is cancelled through its connection:
it has `FAREWELL_SECONDS` to tell its client, with a 503 or in its stream, and `SETTLE_SECONDS` to put things in order.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import cast

import uvicorn
from msgspec import Struct
from uvicorn.server import HANDLED_SIGNALS

from chatport.web.limits import HTTPConfig, HTTPLimits
from chatport.web.protocol import Connection
from chatport.web.turn import Application

LISTEN_BACKLOG = 2048
"""Connections the kernel keeps while we are busy. Precedent: uvicorn; Linux cuts it to net.core.somaxconn."""

FAREWELL_SECONDS = 0.25
"""For the clients of requests that are cut short to hear of it; those that don't read by then are cut off."""

SETTLE_SECONDS = 5.0
"""For the tasks of requests that were cut short at the end."""

OPEN_FILES = 65_536
"""More than the connections, the database and the upstreams of one process ever need."""

SWEEP_TICKS = 5
"""uvicorn's main loop ticks ten times a second; late connections are looked for at every fifth."""

DRAIN_POLL = 0.05
"""Seconds between two looks at what still runs while the server ends."""

log = logging.getLogger("chatport")


class ServerSettings(Struct, frozen=True, kw_only=True):
    """How the server ends, and what it lets a connection take."""

    drain_seconds: float = 30.0
    """For running requests, after the first signal."""
    limits: HTTPLimits = HTTPLimits()
    tls_cert: str | None = None
    """PEM file of the certificate; None: plain HTTP."""
    tls_key: str | None = None
    """PEM file of its key; None: it is in the certificate's file."""


async def run_server(app: Application, sock: socket.socket, settings: ServerSettings) -> None:
    """Serves until a signal; returns when everything is closed. The socket is bound, listening or not."""
    await Server(app, settings).serve(sockets=[sock])


class Server(uvicorn.Server):
    """uvicorn's server with an end of our own, and the sweep over the connections."""

    def __init__(self, app: Application, settings: ServerSettings) -> None:
        config = HTTPConfig(
            app,
            settings.limits,
            http=Connection,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=LISTEN_BACKLOG,
            ssl_certfile=settings.tls_cert,
            ssl_keyfile=settings.tls_key,
        )
        super().__init__(config)
        self.settings = settings

    @property
    def connections(self) -> set[Connection]:
        """Every open connection."""
        return cast("set[Connection]", self.server_state.connections)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        raise_file_limit()
        await super().startup(sockets)

    async def on_tick(self, counter: int) -> bool:
        if counter % SWEEP_TICKS == 0:
            self._sweep()
        return await super().on_tick(counter)

    def _sweep(self) -> None:
        now = asyncio.get_running_loop().time()
        for connection in list(self.connections):
            connection.sweep(now)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for sock in sockets or []:
            sock.close()
        for connection in list(self.connections):
            connection.shutdown()
        if tasks := self.server_state.tasks:
            log.info("stopping: %d running requests have up to %g s", len(tasks), self.settings.drain_seconds)
        await self._drained(self.settings.drain_seconds, unless=lambda: self.force_exit)
        await self._cut_short()

    async def _drained(self, seconds: float, unless: Callable[[], bool] = lambda: False) -> None:
        """Waits until nothing runs and every connection is closed, the time is over, or `unless` says so."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while (self.connections or self.server_state.tasks) and loop.time() < deadline and not unless():
            await asyncio.sleep(DRAIN_POLL)
            self._sweep()

    async def _cut_short(self) -> None:
        """Ends what is still there: each request is cancelled and tells its client, then connections are cut off."""
        await asyncio.sleep(0)  # a task that has not begun could not answer its cancellation
        if tasks := set(self.server_state.tasks):
            log.warning("stopping: %d requests were cut short", len(tasks))
        for connection in list(self.connections):
            connection.cut_short()
        await self._drained(FAREWELL_SECONDS)
        for connection in list(self.connections):
            connection.transport.abort()
        await asyncio.sleep(0)
        if tasks := set(self.server_state.tasks):
            await asyncio.wait(tasks, timeout=SETTLE_SECONDS)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's, but a signal that was obeyed is not raised again: the program ends cleanly, with 0."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        earlier = {number: signal.signal(number, self.handle_exit) for number in HANDLED_SIGNALS}
        try:
            yield
        finally:
            for number, handler in earlier.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal ends the server, the second one ends it now."""
        self.force_exit = self.should_exit
        self.should_exit = True


def raise_file_limit() -> None:
    """Lets this process open up to OPEN_FILES, as far as it may: shells often allow 1024, each connection is one."""
    if sys.platform == "win32":
        return
    import resource  # noqa: PLC0415  not to be had on Windows

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        # macOS has a limit of its own below the one it tells; then what the shell allows must do.
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
