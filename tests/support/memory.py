"""The store without threads or files: SQLite in memory, on the loop, so that a test decides what happens when.

The rows, the statements and the transactions are the real ones; only the lanes of `store/sqlite.py` are not there.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar, cast

from sqlalchemy import StaticPool, create_engine, event

from chatport.store import Store
from chatport.store.database import Done, Work, driver_errors
from chatport.store.migrate import create
from chatport.store.presence import Nowhere, Presence

T = TypeVar("T")


class MemoryDatabase:
    """A database that answers at once. `before` and `after` are called around each write; what they raise is raised:
    before it, nothing is written; after it, all of it is."""

    presence: Presence = Nowhere()

    def __init__(self) -> None:
        self.before: Callable[[], None] = lambda: None
        self.after: Callable[[], None] = lambda: None
        self.writes = 0
        self.at_once = True
        engine = create_engine("sqlite://", poolclass=StaticPool)
        event.listen(engine, "connect", _by_hand)
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
        self._connection = engine.connect()
        self._driver = cast("sqlite3.Connection", self._connection.connection.driver_connection)

    async def write(self, work: Work[T]) -> T:
        return self.run(work)

    def write_now(self, work: Work[T]) -> Done[T] | None:
        return Done(self.run(work)) if self.at_once else None

    async def read(self, work: Work[T]) -> T:
        with driver_errors(), self._connection.begin():
            return work(self._connection)

    def peek(self, query: str) -> list[tuple[Any, ...]]:
        """What a query finds now, whatever is under way."""
        return [*self._driver.execute(query)]

    def copy(self) -> MemoryDatabase:
        """Another database with everything that is committed."""
        other = MemoryDatabase()
        self._driver.backup(other._driver)
        return other

    async def close(self) -> None:
        self._connection.close()

    def run(self, work: Work[T]) -> T:
        """A write."""
        self.before()
        self.writes += 1
        with driver_errors(), self._connection.begin():
            result = work(self._connection)
        self.after()
        return result


def _by_hand(connection: Any, _: object) -> None:
    connection.isolation_level = None
    connection.execute("PRAGMA foreign_keys = ON")


@cache
def _empty() -> MemoryDatabase:
    """Made once: to copy it takes a tenth of the time."""
    database = MemoryDatabase()
    database.run(create)
    return database


def memory_store() -> tuple[Store, MemoryDatabase]:
    """A store over a new, empty database in memory. It notices nothing of other processes: there are none."""
    database = _empty().copy()
    return Store(database), database
