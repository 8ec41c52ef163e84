"""Both databases for every test that asks: fixtures that a room's `conftest.py` imports.

PostgreSQL: a database of its own for each session (and each xdist worker), made on the server that
`CHATPORT_TEST_POSTGRES` names and dropped at the end. Where no server answers its tests are skipped, but fail in CI.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from secrets import token_hex

import asyncpg
import pytest
from sqlalchemy import make_url

from chatport.store import Store, open_store

SERVER = os.environ.get("CHATPORT_TEST_POSTGRES", "postgresql://postgres@127.0.0.1:5432/postgres")

EMPTY = (
    "TRUNCATE keys, completions, completion_tags, replays, owners, prices, limits, budgets, balances, workers, holds, "
    "postings, entries, attempts, contents, usage_hours, usage_days, audit RESTART IDENTITY; "
    "UPDATE revisions SET revision = 0 WHERE topic = 'usage'"
)


async def on_server(address: str, statement: str) -> None:
    connection = await asyncpg.connect(address, timeout=5)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def new_postgres() -> Iterator[str]:
    """The address of an empty database, dropped when the generator is finished."""
    name = f"chatport_test_{token_hex(6)}"
    try:
        asyncio.run(on_server(SERVER, f"CREATE DATABASE {name}"))
    except (OSError, asyncpg.PostgresError) as exc:
        if os.environ.get("CI"):
            pytest.fail(f"CI must offer PostgreSQL at {SERVER} (or CHATPORT_TEST_POSTGRES): {exc}")
        pytest.skip(f"no PostgreSQL at {SERVER}: {exc}")
    yield make_url(SERVER).set(database=name).render_as_string(hide_password=False)
    asyncio.run(on_server(SERVER, f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture(scope="session")
def session_postgres() -> Iterator[str]:
    yield from new_postgres()


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database without any table."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/empty.db"
    else:
        yield from new_postgres()


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without rows."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/store.db"
    address: str = request.getfixturevalue("session_postgres")
    asyncio.run(emptied(address))
    return address


async def emptied(address: str) -> None:
    async with open_store(address):
        await on_server(address, EMPTY)


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[Store]:
    """The store over it, open."""
    async with open_store(store_url) as opened:
        yield opened
