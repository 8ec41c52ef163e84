"""What both databases promise: transactions, durability of what has returned, one kind of error."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from chatport.store.database import Database
from chatport.store.errors import StoreUnavailable


@pytest.fixture
async def notes(database: Database) -> Database:
    """A database with one small table."""
    await database.write(lambda c: c.execute(text("CREATE TABLE notes (n INTEGER PRIMARY KEY)")).close())
    return database


def add(number: int, connection: Connection) -> int:
    return connection.execute(text("INSERT INTO notes VALUES (:n)"), {"n": number}).rowcount


def numbers(connection: Connection) -> list[int]:
    return list(connection.scalars(text("SELECT n FROM notes ORDER BY n")))


async def test_a_write_returns_what_its_work_does_and_is_read_afterwards(notes: Database) -> None:
    assert await notes.write(partial(add, 1)) == 1
    assert await notes.read(numbers) == [1]


async def test_an_exception_of_the_work_undoes_it_and_comes_back(notes: Database) -> None:
    def work(connection: Connection) -> None:
        add(1, connection)
        raise LookupError("changed my mind")

    with pytest.raises(LookupError, match="changed my mind"):
        await notes.write(work)
    assert await notes.read(numbers) == []


async def test_one_failing_write_does_not_spoil_its_neighbours(notes: Database) -> None:
    await notes.write(partial(add, 5))
    outcomes = await asyncio.gather(*(notes.write(partial(add, n)) for n in range(10)), return_exceptions=True)
    assert [n for n, outcome in enumerate(outcomes) if outcome != 1] == [5]
    assert isinstance(outcomes[5], IntegrityError)
    assert await notes.read(numbers) == list(range(10))


async def test_a_cancelled_write_is_carried_through(notes: Database) -> None:
    writing = asyncio.create_task(notes.write(partial(add, 1)))
    await asyncio.sleep(0)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    await notes.write(partial(add, 2))
    while await notes.read(numbers) != [1, 2]:
        await asyncio.sleep(0.01)


async def test_a_read_can_not_write(notes: Database) -> None:
    with pytest.raises(StoreUnavailable, match=r"(?i)read.?only"):
        await notes.read(partial(add, 1))


async def test_writes_that_overlap_lose_nothing(notes: Database) -> None:
    await asyncio.gather(*(notes.write(partial(add, n)) for n in range(200)))
    assert await notes.read(numbers) == list(range(200))


async def test_a_closed_database_says_so(notes: Database) -> None:
    await notes.close()
    await notes.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        await notes.write(partial(add, 1))
    with pytest.raises(StoreUnavailable, match="closed"):
        await notes.read(numbers)


async def test_closing_carries_out_what_was_asked_for(notes: Database) -> None:
    writing = [asyncio.create_task(notes.write(partial(add, n))) for n in range(20)]
    await asyncio.sleep(0)
    await notes.close()
    assert await asyncio.gather(*writing) == [1] * 20
