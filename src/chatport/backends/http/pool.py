"""Connections that are kept and lent: one `Pool` for each origin, all of them in `Pools`.

The last one given back is the first to be lent again, so that the surplus of a busy hour grows old and is closed.
A connection that was kept may have been closed by the other side while the request was on its way. Then, and only
if not one byte of an answer was seen, the request is sent once more, on a fresh connection (RFC 9112 §9.3.1).
"""

from __future__ import annotations

import asyncio
from collections import deque

from msgspec import Struct

from chatport.backends.http.connection import Connection, Timeouts
from chatport.backends.http.dial import Dialer, Origin
from chatport.backends.http.faults import Broken, Unreachable


class PoolLimits(Struct, frozen=True, kw_only=True):
    """What is kept of connections without a request."""

    max_idle: int = 128
    """Per origin; more are closed when they are given back."""
    idle_seconds: float = 30.0
    """Shorter than what proxies keep (60 s is common); servers that keep less are met by the one retry."""
    sweep_seconds: float = 0.1
    """Between two looks at deadlines: how late a timeout may strike."""


class Pool:
    """The connections to one origin."""

    def __init__(self, origin: Origin, dialer: Dialer, limits: PoolLimits) -> None:
        self.origin = origin
        self._dialer = dialer
        self._limits = limits
        self._idle: deque[Connection] = deque()
        self._busy: set[Connection] = set()
        self._sweeping: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def in_use(self) -> int:
        """Connections that carry a request now."""
        return len(self._busy)

    @property
    def kept(self) -> int:
        """Connections without a request."""
        return len(self._idle)

    async def ask(self, request: bytes, timeouts: Timeouts) -> Connection:
        """Sends a request and waits for the answer's head; `give_back` must follow. Cancelled, it closes the connection
        at once. (One coroutine and no context: each layer more is walked whenever something arrives.)"""
        kept = connection = self.lend()
        while True:
            if connection is None:
                connection = await self.open(timeouts.connect)
            try:
                connection.begin(request, timeouts)
                while connection.status == 0:
                    await connection.more()
                return connection
            except BaseException as exc:
                self.give_back(connection)
                if connection is not kept or not isinstance(exc, Broken) or connection.answered:
                    raise
            connection = None

    def lend(self) -> Connection | None:
        """The youngest kept connection that can still be used."""
        while self._idle:
            connection = self._idle.pop()
            if connection.usable():
                self._busy.add(connection)
                return connection
        return None

    async def open(self, seconds: float) -> Connection:
        """A fresh connection. Raises Unreachable, TimedOut."""
        if self._closed:
            raise Unreachable("the pool is closed")
        connection = await self._dialer.dial(self.origin, seconds)
        self._busy.add(connection)
        self._sweep_later()
        return connection

    def give_back(self, connection: Connection) -> None:
        """Keeps it where its answer ended well; otherwise it is closed at once, which tells the upstream."""
        if connection.may_linger():
            connection.linger(self.give_back)
            return
        self._busy.discard(connection)
        if connection.release():
            if self._closed or len(self._idle) >= self._limits.max_idle:
                connection.abort()
            else:
                self._idle.append(connection)

    def close(self) -> None:
        """Ends everything; requests under way fail."""
        self._closed = True
        if self._sweeping is not None:
            self._sweeping.cancel()
        for connection in (*self._idle, *self._busy):
            connection.abort()
        self._idle.clear()

    def _sweep_later(self) -> None:
        if self._sweeping is None:
            self._sweeping = asyncio.get_running_loop().call_later(self._limits.sweep_seconds, self._sweep)

    def _sweep(self) -> None:
        """Ends what is late and what is old. Goes on as long as there is a connection to look at."""
        self._sweeping = None
        now = asyncio.get_running_loop().time()
        for connection in tuple(self._busy):
            connection.sweep(now)
        while self._idle and (not self._idle[0].usable() or now - self._idle[0].idle_since > self._limits.idle_seconds):
            self._idle.popleft().abort()
        if (self._busy or self._idle) and not self._closed:
            self._sweep_later()


class Pools:
    """Every pool, by origin: upstreams that are one place share their connections."""

    def __init__(self, limits: PoolLimits = PoolLimits()) -> None:  # noqa: B008  frozen
        self._limits = limits
        self._dialer = Dialer()
        self._pools: dict[Origin, Pool] = {}

    def to(self, origin: Origin) -> Pool:
        """The pool of an origin, the same for equal ones."""
        pool = self._pools.get(origin)
        if pool is None:
            self._pools[origin] = pool = Pool(origin, self._dialer, self._limits)
        return pool

    def close(self) -> None:
        """Ends every connection. Idempotent."""
        for pool in self._pools.values():
            pool.close()
