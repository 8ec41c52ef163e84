"""PostgreSQL's own: connections that break, servers that are not there."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import Connection, make_url, text

from chatport.store import open_store
from chatport.store.database import Work
from chatport.store.errors import StoreUnavailable
from chatport.store.postgres import CONNECTIONS, PostgresDatabase
from support.databases import on_server

BREAK_ALL = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
    "AND pid <> pg_backend_pid()"
)


async def test_broken_connections_are_replaced(session_postgres: str) -> None:
    database = PostgresDatabase.open(make_url(session_postgres))
    assert await database.read(lambda c: c.scalar(text("SELECT 1"))) == 1
    await on_server(session_postgres, BREAK_ALL)
    assert await database.write(lambda c: c.scalar(text("SELECT 2"))) == 2
    assert await database.read(lambda c: c.scalar(text("SELECT 3"))) == 3
    await database.close()


async def test_a_connection_that_breaks_in_the_middle_is_unavailable(session_postgres: str) -> None:
    database = PostgresDatabase.open(make_url(session_postgres))
    with pytest.raises(StoreUnavailable):
        await database.write(lambda c: c.execute(text("SELECT pg_terminate_backend(pg_backend_pid())")).close())
    assert await database.write(lambda c: c.scalar(text("SELECT 1"))) == 1
    await database.close()


@pytest.mark.parametrize(
    "change",
    [{"port": 1}, {"database": "no_such_database"}, {"username": "nobody_at_all"}],
    ids=["no server", "no database", "no user"],
)
async def test_what_can_not_be_reached_is_unavailable(session_postgres: str, change: dict[str, object]) -> None:
    address = make_url(session_postgres).set(**change)  # type: ignore[arg-type]
    with pytest.raises(StoreUnavailable):
        async with open_store(address.render_as_string(hide_password=False)):
            pass


@pytest.mark.parametrize("spelling", ["postgres://", "postgresql://", "postgresql+asyncpg://"])
async def test_spellings_of_an_address(session_postgres: str, spelling: str) -> None:
    address = spelling + session_postgres.partition("://")[2] + "?sslmode=disable"
    async with open_store(address) as store:
        await store.ping()


async def test_of_two_that_wait_for_each_other_both_get_through(session_postgres: str) -> None:
    """The server undoes one of them; it is tried again."""
    database = PostgresDatabase.open(make_url(session_postgres))
    await database.write(lambda c: c.execute(text("CREATE TABLE pairs (name text PRIMARY KEY, n int)")).close())
    await database.write(lambda c: c.execute(text("INSERT INTO pairs VALUES ('a', 0), ('b', 0)")).close())

    def work(*names: str) -> Work[None]:
        def both(connection: Connection) -> None:
            for name in names:
                connection.execute(text("UPDATE pairs SET n = n + 1 WHERE name = :name"), {"name": name})
                connection.execute(text("SELECT pg_sleep(0.2)"))

        return both

    await asyncio.gather(database.write(work("a", "b")), database.write(work("b", "a")))
    assert await database.read(lambda c: [*c.scalars(text("SELECT n FROM pairs"))]) == [2, 2]
    await database.write(lambda c: c.execute(text("DROP TABLE pairs")).close())
    await database.close()


async def test_long_questions_do_not_keep_anybody_from_writing(session_postgres: str) -> None:
    database = PostgresDatabase.open(make_url(session_postgres))
    questions = [
        asyncio.ensure_future(database.read(lambda c: c.scalar(text("SELECT 1 FROM pg_sleep(1)"))))
        for _ in range(2 * CONNECTIONS)
    ]
    await asyncio.sleep(0.3)
    assert await database.write(lambda c: c.scalar(text("SELECT 2"))) == 2
    assert not any(question.done() for question in questions)
    await asyncio.gather(*questions)
    await database.close()
