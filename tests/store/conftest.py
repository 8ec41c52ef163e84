from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import make_url

from chatport.store.database import Database
from chatport.store.postgres import PostgresDatabase
from chatport.store.sqlite import SqliteDatabase
from support.databases import empty_url, session_postgres, store, store_url

__all__ = ["empty_url", "session_postgres", "store", "store_url"]


@pytest.fixture
async def database(empty_url: str) -> AsyncIterator[Database]:
    """An open database without any table."""
    opened = await open_bare(empty_url)
    yield opened
    await opened.close()


async def open_bare(url: str) -> Database:
    address = make_url(url)
    if address.get_backend_name() == "sqlite":
        return await SqliteDatabase.open(Path(str(address.database)))
    return PostgresDatabase.open(address)
