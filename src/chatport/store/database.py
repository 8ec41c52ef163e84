"""What the rest of the store asks of a database, whichever it is, and how a driver's errors leave this room."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from chatport.store.errors import StoreUnavailable

T = TypeVar("T")

Work = Callable[[Connection], T]
"""Statements of one transaction. Runs off the event loop or interleaved with it, so it touches nothing but its
connection, returns plain values, and may be run on a connection that others' work shares."""


class Database(Protocol):
    """One durable home of rows. Every method raises StoreUnavailable where the database does not answer."""

    async def write(self, work: Work[T]) -> T:
        """Runs the work in a transaction and returns when it is durable. Once begun it is carried through: cancelling
        the caller does not undo it. An exception of the work's own undoes it and comes back to the caller."""
        ...

    async def read(self, work: Work[T]) -> T:
        """Runs the work on one consistent state that holds everything whose `write` has returned."""
        ...

    async def close(self) -> None:
        """Carries out what was asked for and gives everything back. Idempotent."""
        ...


@contextmanager
def driver_errors() -> Iterator[None]:
    """Turns a driver's errors into StoreUnavailable. A violated constraint is a mistake of ours and stays as it is."""
    try:
        yield
    except IntegrityError:
        raise
    except DBAPIError as exc:
        raise StoreUnavailable(f"{type(exc.orig).__name__}: {exc.orig}") from exc
    except (PoolTimeout, OSError) as exc:
        raise StoreUnavailable(f"{type(exc).__name__}: {exc}") from exc
