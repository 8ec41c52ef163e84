"""SQLite's own: batches, other processes, a file that is not as it should be."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.exc import IntegrityError

from chatport.store import sqlite
from chatport.store.database import Work
from chatport.store.errors import StoreUnavailable
from chatport.store.sqlite import MAX_BATCH, SqliteDatabase


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "data.db"


@pytest.fixture
async def database(path: Path) -> AsyncIterator[SqliteDatabase]:
    opened = await SqliteDatabase.open(path)
    await opened.write(lambda c: c.execute(text("CREATE TABLE notes (n INTEGER PRIMARY KEY, body BLOB)")).close())
    yield opened
    await opened.close()


def add(number: int, connection: Connection, size: int = 0) -> None:
    connection.execute(text("INSERT INTO notes VALUES (:n, zeroblob(:size))"), {"n": number, "size": size})


def count(connection: Connection) -> int:
    return int(connection.execute(text("SELECT count(*) FROM notes")).scalar_one())


@contextmanager
def counting_commits() -> Iterator[list[Connection]]:
    commits: list[Connection] = []

    def committed(connection: Connection) -> None:
        commits.append(connection)

    event.listen(Engine, "commit", committed)
    try:
        yield commits
    finally:
        event.remove(Engine, "commit", committed)


async def batched(database: SqliteDatabase, *work: Work[Any]) -> list[Any]:
    """Sends the work while the writer is busy, so that it forms one batch."""
    begun, free = threading.Event(), threading.Event()

    def hold(_: Connection) -> None:
        begun.set()
        free.wait(10)

    tasks = [asyncio.create_task(database.write(hold))]
    await asyncio.to_thread(begun.wait, 10)
    tasks += [asyncio.create_task(database.write(one)) for one in work]
    await asyncio.sleep(0)
    free.set()
    _, *outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    return outcomes


async def test_what_arrived_together_is_one_commit(database: SqliteDatabase) -> None:
    with counting_commits() as commits:
        await batched(database, *(partial(add, n) for n in range(50)))
    assert len(commits) == 2  # the busy one's, and one for all fifty
    assert await database.read(count) == 50


async def test_a_batch_has_a_limit(database: SqliteDatabase) -> None:
    with counting_commits() as commits:
        await batched(database, *(partial(add, n) for n in range(MAX_BATCH + 1)))
    assert len(commits) == 3


async def test_nobody_hears_of_a_write_before_its_commit(database: SqliteDatabase) -> None:
    heard: list[int] = []
    outcomes = await batched(database, partial(add, 1), lambda c: heard.append(count(c)), lambda c: 1 / 0)
    assert heard == [1]
    assert isinstance(outcomes[2], ZeroDivisionError)
    assert await database.read(count) == 1


async def test_a_full_disk_fails_what_does_not_fit_and_nothing_later(database: SqliteDatabase) -> None:
    await database.write(lambda c: c.execute(text("PRAGMA max_page_count = 20")).close())
    outcomes = await batched(database, partial(add, 1), partial(add, 2, size=1_000_000), partial(add, 3))
    assert isinstance(outcomes[1], StoreUnavailable)
    kept = sum(outcome is None for outcome in outcomes)
    assert await database.read(count) == kept
    await database.write(partial(add, 4))
    assert await database.read(count) == kept + 1


async def test_two_programs_share_a_file(path: Path, database: SqliteDatabase) -> None:
    other = await SqliteDatabase.open(path)
    ours = [database.write(partial(add, n)) for n in range(100)]
    theirs = [other.write(partial(add, n)) for n in range(100, 200)]
    await asyncio.gather(*ours, *theirs)
    await other.close()
    assert await database.read(count) == 200


async def test_a_file_locked_for_too_long_is_unavailable_and_comes_back(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT", 0.05)
    database = await SqliteDatabase.open(path)
    await database.write(lambda c: c.execute(text("CREATE TABLE notes (n INTEGER PRIMARY KEY, body BLOB)")).close())
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="locked"):
        await database.write(partial(add, 1))
    assert await database.read(count) == 0  # reading goes on
    other.execute("ROLLBACK")
    other.close()
    await database.write(partial(add, 1))
    assert await database.read(count) == 1
    await database.close()


async def test_a_file_that_is_no_database_is_unavailable(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"something else entirely" * 100)
    threads = threading.active_count()
    with pytest.raises(StoreUnavailable, match="not a database"):
        await SqliteDatabase.open(path)
    assert threading.active_count() <= threads + 1  # asyncio's own pool may have grown by one


async def test_a_folder_that_can_not_be_made_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnavailable):
        await SqliteDatabase.open(tmp_path / "file" / "data.db")


async def test_the_file_is_its_owners_alone(path: Path, database: SqliteDatabase) -> None:
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}


@pytest.mark.parametrize(("durability", "level"), [("process", 1), ("power", 2)])
async def test_durability(path: Path, durability: sqlite.Durability, level: int) -> None:
    database = await SqliteDatabase.open(path, durability)
    assert await database.write(lambda c: c.exec_driver_sql("PRAGMA synchronous").scalar()) == level
    assert await database.write(lambda c: c.exec_driver_sql("PRAGMA journal_mode").scalar()) == "wal"
    assert await database.write(lambda c: c.exec_driver_sql("PRAGMA foreign_keys").scalar()) == 1
    await database.close()


WRITES_UNTIL_KILLED = """
import asyncio, itertools, sys
from pathlib import Path
from typing import Any
from sqlalchemy import text
from chatport.store.sqlite import SqliteDatabase

async def writer(database, start):
    for n in itertools.count(start, 8):
        await database.write(lambda c: c.execute(text("INSERT INTO notes VALUES (:n, NULL)"), {"n": n}).close())
        print(n, flush=True)

async def main():
    database = await SqliteDatabase.open(Path(sys.argv[1]))
    await asyncio.gather(*(writer(database, start) for start in range(8)))

asyncio.run(main())
"""


async def test_what_has_returned_survives_kill_9(path: Path, database: SqliteDatabase) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITES_UNTIL_KILLED, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    told = [int(process.stdout.readline()) for _ in range(200)]
    process.send_signal(signal.SIGKILL)
    told += [int(line) for line in process.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
    process.wait(10)
    process.stdout.close()
    kept = await database.read(lambda c: set(c.scalars(text("SELECT n FROM notes"))))
    assert set(told) <= kept
    assert len(kept) <= len(told) + 8  # at most one write of each writer that nobody heard of


async def test_a_fault_of_the_commit_itself_reaches_who_waits_and_ends_nothing(database: SqliteDatabase) -> None:
    """A violated foreign key whose check was put off shows only then."""

    def orphan(connection: Connection) -> None:
        connection.exec_driver_sql("CREATE TABLE children (n REFERENCES notes (n) DEFERRABLE INITIALLY DEFERRED)")
        connection.exec_driver_sql("INSERT INTO children VALUES (99)")

    with pytest.raises(IntegrityError):
        await database.write(orphan)
    await database.write(partial(add, 1))
    assert await database.read(count) == 1


async def test_values_are_bound_as_they_are(database: SqliteDatabase) -> None:
    """The driver is told not to ask them; what it stores is what it would have stored."""
    values = (None, b"\0\xff", True, False, 2**62, 0.5, "text")

    def kinds(connection: Connection) -> tuple[object, ...]:
        driver = connection.connection.driver_connection
        assert driver is not None
        told = ", ".join("typeof(?)" for _ in values)
        kept = ", ".join("?" for _ in values)
        return (
            *driver.execute(f"SELECT {told}", values).fetchone(),
            *driver.execute(f"SELECT {kept}", values).fetchone(),
        )

    assert await database.read(kinds) == (
        *("null", "blob", "integer", "integer", "integer", "real", "text"),
        *(None, b"\0\xff", 1, 0, 2**62, 0.5, "text"),
    )
