"""The store as the program holds it: one database, its rows by kind, and word of what changes in it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Self

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from chatport.store.audit import AuditRows
from chatport.store.budgets import BudgetRows
from chatport.store.completions import CompletionRows
from chatport.store.contents import ContentRows
from chatport.store.database import Database
from chatport.store.errors import StoreMisconfigured
from chatport.store.journal import Journal
from chatport.store.keys import KeyRows
from chatport.store.limits import LimitRows
from chatport.store.migrate import migrate, revision
from chatport.store.owners import OwnerRows
from chatport.store.prices import PriceRows
from chatport.store.proof import Prover
from chatport.store.records import RecordRows
from chatport.store.replays import ReplayRows
from chatport.store.retention import Retention
from chatport.store.revisions import Revisions
from chatport.store.schema import HEAD
from chatport.store.sqlite import Durability, SqliteDatabase
from chatport.store.usage import UsageRows

POLL_INTERVAL = 0.4
"""Seconds between looks at what other processes have changed; the promise is one second."""

OnChange = Callable[[], Awaitable[None]]

log = logging.getLogger("chatport.store")


class Store:
    """Rows by kind. Every call may raise StoreUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._changed = asyncio.Event()
        self._callbacks: list[OnChange] = []
        self._watching: asyncio.Task[None] | None = None
        self.revisions = Revisions(database)
        self.keys = KeyRows(database, self._changed.set)
        self.limits = LimitRows(database, self._changed.set)
        self.completions = CompletionRows(database)
        self.journal = Journal(database)
        self.budgets = BudgetRows(database, self._changed.set)
        self.owners = OwnerRows(database, self._changed.set)
        self.prices = PriceRows(database, self._changed.set)
        self.audit = AuditRows(database)
        self.replays = ReplayRows(database)
        self.records = RecordRows(database)
        self.usage = UsageRows(database)
        self.contents = ContentRows(database)
        self.retention = Retention(database)
        self.prover = Prover(database)

    @classmethod
    async def open(cls, url: str, durability: Durability = "process") -> Self:
        """Like `open_store`, for who closes it by hand."""
        database = await _open_database(url, durability)
        try:
            if await database.read(revision) != HEAD:
                await database.write(migrate)
            store = cls(database)
            seen = await store.revisions.current()
        except BaseException:
            await database.close()
            raise
        store._watching = asyncio.create_task(store._watch(seen), name="store-watch")
        return store

    def watch(self, callback: OnChange) -> Callable[[], None]:
        """Awaits the callback whenever keys, or the rules of the account, have changed since the store was opened: at
        once where the change was made here, within a second where another process made it. One that fails is called
        again. Returns what ends it."""
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback)

    async def ping(self) -> None:
        """Returns when the database answers; raises StoreUnavailable when it does not."""
        await self.revisions.current()

    async def close(self) -> None:
        """Carries out what was asked for and gives everything back. Idempotent."""
        if self._watching is not None:
            self._watching.cancel()
            with suppress(asyncio.CancelledError):
                await self._watching
        await self._database.close()

    async def _watch(self, seen: dict[str, int]) -> None:
        failing = False
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_INTERVAL):  # wait_for may swallow a cancellation (Python 3.11)
                    await self._changed.wait()
            self._changed.clear()
            try:
                seen = await self._tell(seen)
                failing = False
            except Exception as exc:  # the watch outlives whatever goes wrong in it: a revoked key must be noticed
                if not failing:
                    log.error("changes of keys and rules can't be followed for now", exc_info=exc)
                failing = True

    async def _tell(self, seen: dict[str, int]) -> dict[str, int]:
        """Calls back if the revisions are not `seen`; returns those that everybody has seen then."""
        found = await self.revisions.current()
        if found != seen:
            for callback in tuple(self._callbacks):
                await callback()
        return found


@asynccontextmanager
async def open_store(url: str, *, durability: Durability = "process") -> AsyncIterator[Store]:
    """The store at `sqlite:///path` or `postgresql://user@host/db`, its schema brought up to date.

    `durability` concerns SQLite alone. Raises StoreMisconfigured, StoreUnavailable, StoreIncompatible.
    """
    store = await Store.open(url, durability)
    try:
        yield store
    finally:
        await store.close()


async def _open_database(address: str, durability: Durability) -> Database:
    url = _parsed(address)
    if url.get_backend_name() == "sqlite":
        return await SqliteDatabase.open(_path(url), durability)
    try:
        from chatport.store.postgres import PostgresDatabase  # noqa: PLC0415  its driver is an extra
    except ImportError as exc:
        raise StoreMisconfigured("PostgreSQL needs a driver: pip install 'chatport[postgres]'.") from exc
    return PostgresDatabase.open(url)


def _parsed(address: str) -> URL:
    """The address, which may hold a password and is therefore not repeated whole."""
    try:
        url = make_url(address.replace("postgres://", "postgresql://", 1))
    except (ArgumentError, ValueError) as exc:
        raise StoreMisconfigured(f"The store's URL is no database URL. {ALLOWED}") from exc
    if url.get_backend_name() not in {"sqlite", "postgresql"}:
        raise StoreMisconfigured(f"The store's URL names {url.drivername!r}, which is not supported. {ALLOWED}")
    return url


def _path(url: URL) -> Path:
    """SQLite's file; its connections share one, so a database in memory won't do."""
    if not url.database or ":memory:" in url.database or url.query:
        raise StoreMisconfigured(f"The store's URL must name a file, without options. {ALLOWED}")
    return Path(url.database)


ALLOWED = "Allowed: sqlite:///path/to/file.db or postgresql://user:password@host/database."
