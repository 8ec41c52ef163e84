"""SQLite: exactly one writing connection in the process, fed by one queue, and one for reading beside it.

Each connection lives on a thread of its own, a `Lane`. What has arrived in a lane's queue when it looks is one batch,
and a batch is one transaction: under load many small writes share one commit, which is most of what a write costs,
while a single write waits for nobody. Each job of a batch has a savepoint, so that one that fails is undone alone. The
futures are resolved after the commit, with one wake-up of the event loop for the whole batch.

Small writes that every request pays for (the account's) need not go to a thread and back: `write_now` carries them out
where it is called, on a third connection, in less than a tenth of a millisecond. It never waits: where somebody else is
writing, or a write must reach the disk itself, they take their place in the queue. Checkpoints of the write-ahead log,
which take longer, are made on a thread.

The file is shared with other processes (`chatport keys` beside a server): a write takes SQLite's lock when it begins
and waits for it up to `BUSY_TIMEOUT`; readers never wait (WAL).

Known wart: SQLite answers some faults (disk full, I/O error) by undoing the whole transaction; then every job of that
batch is told that the store does not answer.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any, Literal, Self, cast

from sqlalchemy import Connection, Engine, NullPool, create_engine, event

from chatport.store.database import Done, T, Work, driver_errors
from chatport.store.errors import StoreUnavailable
from chatport.store.presence import beside

Durability = Literal["process", "power"]
"""What a returned write survives: the end of the process (`kill -9`), or a loss of power too."""

BUSY_TIMEOUT = 5.0
"""Seconds to wait while another process writes."""

MAX_BATCH = 512
"""Jobs in one transaction: bounds how long the first of them waits for its commit."""

WAL_SIZE_KEPT = 64 * 2**20
"""Bytes of write-ahead log left on disk once a burst of writing is over."""


CHECKPOINT_EVERY = 1.0
"""Seconds between two looks at the write-ahead log."""

WAL_RESTART = 32 * 2**20
"""Bytes of write-ahead log above which a checkpoint waits for readers, so that the log begins anew: under constant load
it would grow without end."""

WRITING = (
    "journal_mode = WAL",
    "foreign_keys = ON",
    f"journal_size_limit = {WAL_SIZE_KEPT}",
    "wal_autocheckpoint = 0",
)
"""Settings of the connections that write; the journal mode stays with the file."""

SYNCHRONOUS: dict[Durability, str] = {"process": "synchronous = NORMAL", "power": "synchronous = FULL"}


class SqliteDatabase:
    """One file."""

    def __init__(self, path: Path, writing: Lane, reading: Lane, quick: Quick | None) -> None:
        self.presence = beside(path)
        self._path = path
        self._writing = writing
        self._reading = reading
        self._quick = quick
        self._checkpoints = asyncio.create_task(self._keep_log_short(), name="checkpoints")

    @classmethod
    async def open(cls, path: Path, durability: Durability = "process") -> Self:
        """Opens the file, making it (readable by its owner alone) and its folder where they are missing."""
        _bind_as_they_are()
        settings = (*WRITING, SYNCHRONOUS[durability])
        with driver_errors():
            await asyncio.to_thread(_create, path)
        writing = await Lane.open("chatport-write", _engine(path, "BEGIN IMMEDIATE", *settings))
        try:
            reading = await Lane.open("chatport-read", _engine(path, "BEGIN", "query_only = ON"))
        except BaseException:
            await writing.close()
            raise
        # A write that waits for the disk would keep the event loop waiting, too.
        quick = Quick(_engine(path, None, *settings, "busy_timeout = 0")) if durability == "process" else None
        return cls(path, writing, reading, quick)

    async def write(self, work: Work[T]) -> T:
        return await self._writing.run(work)

    def write_now(self, work: Work[T]) -> Done[T] | None:
        """Carries out a small write at once, if it can be; None: it must wait, and `write` is the way."""
        return None if self._quick is None else self._quick.run(work)

    async def read(self, work: Work[T]) -> T:
        return await self._reading.run(work)

    async def close(self) -> None:
        self._checkpoints.cancel()
        if self._quick is not None:
            self._quick.close()
            self._quick = None
        await self._reading.close()
        await self._writing.close()

    async def _keep_log_short(self) -> None:
        """Moves the write-ahead log into the database now and then; what fails is tried again."""
        while True:
            await asyncio.sleep(CHECKPOINT_EVERY)
            with suppress(OSError, sqlite3.Error):
                await asyncio.to_thread(_checkpoint, self._path)


class Quick:
    """A connection for writes on the event loop. SQLAlchemy is told nothing of its transactions: each is begun and
    ended on the driver, at a fifth of the cost."""

    def __init__(self, engine: Engine) -> None:
        with driver_errors():
            self._connection = engine.connect()
        self._driver = _driver(self._connection)

    def run(self, work: Work[T]) -> Done[T] | None:
        """The work in a transaction of its own; None: another connection is writing now."""
        driver = self._driver
        try:
            driver.execute("BEGIN IMMEDIATE")
        except sqlite3.Error:
            return None
        try:
            with driver_errors():
                result = work(self._connection)
                driver.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                driver.rollback()
            raise
        return Done(result)

    def close(self) -> None:
        self._connection.close()


class Job:
    """Work on its way through a lane, and where its outcome is awaited."""

    def __init__(self, work: Work[Any], future: asyncio.Future[Any]) -> None:
        self._work = work
        self._future = future
        self._result: Any = None
        self._fault: Exception | None = None

    def attempt(self, connection: Connection) -> None:
        """Runs the work inside a savepoint. Raises only where that undid the whole transaction."""
        try:
            with driver_errors(), connection.begin_nested():
                self._result = self._work(connection)
        except Exception as exc:  # whatever it is, it belongs to the caller who awaits this job
            self._fault = exc
            if not _driver(connection).in_transaction:
                raise StoreUnavailable("the database undid a whole transaction") from exc

    def fail(self, fault: Exception) -> None:
        """The transaction came to nothing; a fault of the job's own is still the better answer."""
        self._fault = self._fault or fault

    def deliver(self) -> None:
        """On the event loop: wakes who awaits it."""
        _settle(self._future, self._result, self._fault)


class Lane:
    """A thread that owns one connection and runs the jobs sent to it, in order."""

    def __init__(self, name: str, engine: Engine) -> None:
        self._engine = engine
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        self._thread = Thread(target=self._serve, name=name, daemon=True)
        self._closing = False

    @classmethod
    async def open(cls, name: str, engine: Engine) -> Self:
        """Starts the thread and returns when its connection works."""
        lane = cls(name, engine)
        lane._thread.start()
        try:
            await lane._ready
        except BaseException:
            await lane.close()
            raise
        return lane

    async def run(self, work: Work[T]) -> T:
        """Returns the work's result after its transaction is committed."""
        if self._closing:
            raise StoreUnavailable("the database is closed")
        future: asyncio.Future[T] = self._loop.create_future()
        self._queue.put(Job(work, future))
        return await future

    async def close(self) -> None:
        """Ends the thread when everything queued so far is done."""
        if not self._closing:
            self._closing = True
            self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _serve(self) -> None:
        """The thread's whole life."""
        try:
            with driver_errors():
                connection = self._engine.connect()
        except StoreUnavailable as exc:
            self._on_loop(_settle, self._ready, None, exc)
            return
        self._on_loop(_settle, self._ready, None, None)
        with connection:
            while batch := self._next_batch():
                _commit(connection, batch)
                self._on_loop(_deliver, batch)

    def _next_batch(self) -> list[Job]:
        """What waits now: one job at least, none when the lane is to end."""
        batch: list[Job] = []
        job = self._queue.get()
        while job is not None:
            batch.append(job)
            if len(batch) == MAX_BATCH or self._queue.empty():
                return batch
            job = self._queue.get()
        if batch:
            self._queue.put(None)
        return batch

    def _on_loop(self, act: Callable[..., None], *args: object) -> None:
        with suppress(RuntimeError):  # the loop is closed: the program ends and nobody waits any more
            self._loop.call_soon_threadsafe(act, *args)


def _commit(connection: Connection, batch: list[Job]) -> None:
    """One transaction for all of them."""
    try:
        with driver_errors(), connection.begin():
            for job in batch:
                job.attempt(connection)
    except Exception as exc:  # noqa: BLE001  the thread outlives it, and everybody who waits is told
        with suppress(sqlite3.Error):
            _driver(connection).rollback()  # a commit that fails leaves SQLite's transaction open
        for job in batch:
            job.fail(exc)


def _deliver(batch: list[Job]) -> None:
    for job in batch:
        job.deliver()


def _settle(future: asyncio.Future[Any], result: Any, fault: Exception | None) -> None:
    """On the event loop: wakes who awaits the future, if anybody still does."""
    if future.done():
        return
    if fault is not None:
        future.set_exception(fault)
    else:
        future.set_result(result)


def _driver(connection: Connection) -> sqlite3.Connection:
    return cast(sqlite3.Connection, connection.connection.driver_connection)


def _bind_as_they_are() -> None:
    """Tells the driver that None, bytes and booleans are bound as they are. Untold, it asks each of them, each time,
    whether it can adapt itself, which costs more than storing it."""
    known: dict[None, None] = {None: None}
    sqlite3.register_adapter(type(None), known.__getitem__)  # gives back None, without a frame of Python's
    sqlite3.register_adapter(bytes, bytes)
    sqlite3.register_adapter(bool, int)


def _create(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))


def _checkpoint(path: Path) -> None:
    log = path.with_name(f"{path.name}-wal")
    size = log.stat().st_size
    if size == 0:
        return
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT, isolation_level=None)
    try:
        connection.execute(f"PRAGMA wal_checkpoint({'RESTART' if size > WAL_RESTART else 'PASSIVE'})")
    finally:
        connection.close()


def _engine(path: Path, begin: str | None, *pragmas: str) -> Engine:
    """Makes connections that begin each transaction with `begin` (None: with nothing), sqlite3's own idea of when to do
    so switched off."""

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT, isolation_level=None)
        try:
            for pragma in pragmas:
                connection.execute(f"PRAGMA {pragma}")
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    engine = create_engine("sqlite://", creator=connect, poolclass=NullPool, hide_parameters=True)
    if begin is not None:
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
    return engine
