"""PostgreSQL: a pool of connections, one transaction for each piece of work.

Writes run in a task of their own, so that a caller's cancellation neither tears a connection in the middle of a
transaction nor makes a write's fate differ from SQLite's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import asyncpg
from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from chatport.store.database import Done, T, Work, driver_errors
from chatport.store.errors import StoreUnavailable
from chatport.store.presence import Nowhere, Presence

CONNECTIONS = 10
"""Open at most, for each process; PostgreSQL's own default allows 100 in all."""

CONNECT_TIMEOUT = 5.0
"""Seconds to wait for a new connection, and for a free one of the pool."""

READERS = 7
"""Of them, those that may read at the same time: long questions must not keep requests from the account."""

TRIES = 3
"""Of a transaction that the server undid in favour of another one."""

WORTH_ANOTHER_TRY = frozenset({"40001", "40P01"})
"""Serialization failure, deadlock."""

ANSWER_TIMEOUT = 15.0
"""Seconds a statement may take; a network that swallows packets says nothing for minutes."""


class PostgresDatabase:
    """One database on a server."""

    presence: Presence = Nowhere()

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._reading = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        self._readers = asyncio.Semaphore(READERS)
        self._writes: set[asyncio.Task[Any]] = set()
        self._closed = False

    @classmethod
    def open(cls, url: URL) -> Self:
        """Connects when the first work comes."""
        engine = create_async_engine(
            url.set(drivername="postgresql+asyncpg", query=_query(url)),
            pool_size=CONNECTIONS,
            max_overflow=0,
            pool_timeout=CONNECT_TIMEOUT,
            pool_pre_ping=True,
            hide_parameters=True,
            connect_args={"timeout": CONNECT_TIMEOUT, "command_timeout": ANSWER_TIMEOUT},
        )
        return cls(engine)

    async def write(self, work: Work[T]) -> T:
        self._refuse_when_closed()
        task = asyncio.create_task(self._commit(work))
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)
        return await asyncio.shield(task)

    def write_now(self, work: Work[T]) -> Done[T] | None:
        """A server is never asked without waiting."""
        return None

    async def read(self, work: Work[T]) -> T:
        self._refuse_when_closed()
        with _server_errors():
            async with self._readers, self._reading.connect() as connection:
                return await connection.run_sync(work)

    async def close(self) -> None:
        self._closed = True
        await asyncio.gather(*self._writes, return_exceptions=True)
        await self._engine.dispose()

    async def _commit(self, work: Work[T]) -> T:
        with _server_errors():
            for _ in range(TRIES - 1):
                try:
                    return await self._once(work)
                except DBAPIError as exc:
                    if getattr(exc.orig, "sqlstate", None) not in WORTH_ANOTHER_TRY:
                        raise
            return await self._once(work)

    async def _once(self, work: Work[T]) -> T:
        async with self._engine.begin() as connection:
            return await connection.run_sync(work)

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise StoreUnavailable("the database is closed")


@contextmanager
def _server_errors() -> Iterator[None]:
    """`driver_errors`, and those that asyncpg raises past SQLAlchemy while it connects."""
    try:
        with driver_errors():
            yield
    except (asyncpg.PostgresError, asyncpg.InterfaceError) as exc:
        raise StoreUnavailable(f"{type(exc).__name__}: {exc}") from exc


def _query(url: URL) -> dict[str, str | tuple[str, ...]]:
    """The address's options, `sslmode` under asyncpg's name for it."""
    return {"ssl" if name == "sslmode" else name: value for name, value in url.query.items()}
