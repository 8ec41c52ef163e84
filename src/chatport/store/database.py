"""What the rest of the store asks of a database, whichever it is, and how a driver's errors leave this room."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Generic, Protocol, TypeVar, cast

from msgspec import Struct
from sqlalchemy import Connection, text
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from chatport.store.errors import StoreUnavailable
from chatport.store.presence import Presence

T = TypeVar("T")

Work = Callable[[Connection], T]
"""Statements of one transaction. Runs off the event loop or interleaved with it, so it touches nothing but its
connection, returns plain values, and may be run on a connection that others' work shares."""


class Done(Generic[T]):
    """The result of work that is durable."""

    __slots__ = ("result",)

    def __init__(self, result: T) -> None:
        self.result = result


class Database(Protocol):
    """One durable home of rows. Every method raises StoreUnavailable where the database does not answer."""

    presence: Presence
    """Of the processes that share it."""

    async def write(self, work: Work[T]) -> T:
        """Runs the work in a transaction and returns when it is durable. Once begun it is carried through: cancelling
        the caller does not undo it. An exception of the work's own undoes it and comes back to the caller."""
        ...

    def write_now(self, work: Work[T]) -> Done[T] | None:
        """Carries out a small write at once, where this database can; None: it can't now, and `write` is the way."""
        ...

    async def read(self, work: Work[T]) -> T:
        """Runs the work on one consistent state that holds everything whose `write` has returned."""
        ...

    async def close(self) -> None:
        """Carries out what was asked for and gives everything back. Idempotent."""
        ...


@contextmanager
def driver_errors() -> Iterator[None]:
    """Turns a driver's errors into StoreUnavailable. A violated constraint, or a value that no column can hold, is a
    mistake of ours and stays as it is: trying again would not help."""
    try:
        yield
    except (IntegrityError, DataError, sqlite3.IntegrityError, sqlite3.DataError):
        raise
    except DBAPIError as exc:
        raise StoreUnavailable(f"{type(exc.orig).__name__}: {exc.orig}") from exc
    except (PoolTimeout, OSError, sqlite3.Error) as exc:
        raise StoreUnavailable(f"{type(exc).__name__}: {exc}") from exc


def run_many(connection: Connection, statement: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Runs a statement once for each of the rows, inside of the connection's transaction. Parameters: `:name`."""
    if not rows:
        return
    if connection.dialect.name == "sqlite":
        _sqlite(connection).executemany(statement, rows)
    else:
        connection.execute(text(statement), rows)


def rows_of(connection: Connection, statement: str, parameters: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
    """The rows that a statement gives, in the same way."""
    if connection.dialect.name == "sqlite":
        return _sqlite(connection).execute(statement, parameters).fetchall()
    return connection.execute(text(statement), parameters).all()


def counts_of(connection: Connection, statement: str, rows: Sequence[Sequence[Any]]) -> list[int]:
    """How many rows a statement has changed or removed for each of these. SQLite alone; parameters: `?`."""
    cursor = _sqlite(connection).cursor()
    return [cursor.execute(statement, row).rowcount for row in rows]


class Insertion:
    """Inserts rows whose columns are the fields of a struct, in their order. SQLite's driver takes them by place: it
    would look up every name of every row."""

    def __init__(self, table: str, row: type[Struct]) -> None:
        self._names = row.__struct_fields__
        into = f"INSERT INTO {table} ({', '.join(self._names)}) VALUES"
        self.by_name = f"{into} ({', '.join(f':{name}' for name in self._names)})"
        self.by_place = f"{into} ({', '.join('?' for _ in self._names)})"

    def run(self, connection: Connection, rows: Sequence[Sequence[Any]]) -> None:
        """Inserts all of them, inside of the connection's transaction."""
        if not rows:
            return
        if connection.dialect.name == "sqlite":
            _sqlite(connection).executemany(self.by_place, rows)
        else:
            connection.execute(text(self.by_name), [dict(zip(self._names, row, strict=True)) for row in rows])

    def numbered(self, connection: Connection, row: Sequence[Any], column: str) -> int:
        """Inserts one; returns the number that the database gave it, in this column: on SQLite its INTEGER PRIMARY KEY,
        which the driver knows without RETURNING."""
        if connection.dialect.name == "sqlite":
            return cast("int", _sqlite(connection).execute(self.by_place, row).lastrowid)
        named = dict(zip(self._names, row, strict=True))
        return int(connection.execute(text(f"{self.by_name} RETURNING {column}"), named).scalar_one())


def _sqlite(connection: Connection) -> sqlite3.Connection:
    return cast("sqlite3.Connection", connection.connection.dbapi_connection)
