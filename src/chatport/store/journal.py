"""Everything that requests write, in groups.

What arrives in one turn of the event loop, or while a write is under way, is one transaction (`books.py`). A write that
has begun is carried through, whatever becomes of the caller.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Final, TypeAlias

from msgspec import json

from chatport.store.account import Answer, Checkpoint, Hold, HoldAccount, HoldRow, Settlement, Write
from chatport.store.books import write_account
from chatport.store.database import Database, T, Work, rows_of, run_many
from chatport.store.errors import StoreUnavailable

TURNS: Final = 10
"""Further turns of the loop that a write waits for others to share its transaction, if the one before had company: they
save a fifth of a request's whole cost then, and are wasted on one who is alone."""

LARGEST_BATCH: Final = 512
"""Writes in one transaction: bounds how long the first of them waits."""


class Written(asyncio.Future[T]):
    """A write under way, which nobody calls back: whoever is cancelled while awaiting it hears of that when it is done.
    Does what `asyncio.shield` does, without its second future, and its two further turns of the loop."""

    def cancel(self, msg: Any = None) -> bool:
        return False


Waiting: TypeAlias = tuple[Write, Written[Any]]


class Journal:
    """Everything that requests write. Each may come to StoreUnavailable; then it is not known whether it was written,
    and settling again is harmless. Whoever can't wait for it when cancelled shields what it awaits."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: list[Waiting] = []
        self._scheduled = False
        self._crowded = False
        """Whether the last transaction was of several."""
        self._writing: asyncio.Task[None] | None = None

    @cached_property
    def _loop(self) -> asyncio.AbstractEventLoop:
        """The one that writes come on; asking for it each time would cost a system call."""
        return asyncio.get_running_loop()

    def hold(self, hold: Hold) -> Written[Answer]:
        """Places a hold, or changes it."""
        return self._submit(hold)

    def checkpoint(self, checkpoint: Checkpoint) -> Written[None]:
        """Notes how far an answer is."""
        return self._submit(checkpoint)

    def settle(self, settlement: Settlement) -> Written[bool]:
        """Posts a request. False: it was posted already."""
        return self._submit(settlement)

    def _submit(self, write: Write) -> Written[Any]:
        future: Written[Any] = Written(loop=self._loop)
        self._waiting.append((write, future))
        self._schedule()
        return future

    def _schedule(self) -> None:
        if self._waiting and not self._scheduled and self._writing is None:
            self._scheduled = True
            self._wait(TURNS if self._crowded else 0)

    def _wait(self, turns: int) -> None:
        if turns:
            self._loop.call_soon(self._wait, turns - 1)
        else:
            self._loop.call_soon(self._write_what_waits)

    def _write_what_waits(self) -> None:
        """What came in this turn of the loop: at once where the database can, otherwise in a task."""
        self._scheduled = False
        batch = self._next_batch()
        self._crowded = len(batch) > 1
        try:
            done = None if _is_large(batch) else self._database.write_now(_writing(batch))
        except Exception as exc:  # noqa: BLE001  whatever it is, it belongs to those who wait
            if _is_one_s_fault(batch, exc):
                self._begin(batch)
                return
            _refuse(batch, exc)
            self._schedule()
            return
        except BaseException:
            _refuse(batch, StoreUnavailable("the program ends"))
            raise
        if done is not None:
            _answer(batch, done.result)
            self._schedule()
            return
        self._waiting = batch + self._waiting
        self._begin()

    def _begin(self, apart: Sequence[Waiting] = ()) -> None:
        """Writes, in a task, until nothing waits. `apart`: first, each in a transaction of its own."""
        self._writing = asyncio.create_task(self._write_all(apart), name="account")
        self._writing.add_done_callback(lambda done: self._ended(done, apart))

    def _ended(self, done: asyncio.Task[None], apart: Sequence[Waiting]) -> None:
        self._writing = None
        if done.cancelled() or done.exception() is not None:  # the program ends: nobody is left who would write
            _refuse([*apart, *self._waiting], StoreUnavailable("the program ends"))
            self._waiting.clear()
        self._schedule()

    async def _write_all(self, apart: Sequence[Waiting]) -> None:
        for one in apart:
            await self._write([one])
        while batch := self._next_batch():
            await self._write(batch)

    async def _write(self, batch: Sequence[Waiting]) -> None:
        try:
            answers = await self._database.write(_writing(batch))
        except Exception as exc:  # noqa: BLE001  as above
            if not _is_one_s_fault(batch, exc):
                _refuse(batch, exc)
                return
        except BaseException:
            _refuse(batch, StoreUnavailable("the program ends"))
            raise
        else:
            _answer(batch, answers)
            return
        try:
            for one in batch:
                await self._write([one])
        except BaseException:
            _refuse(batch, StoreUnavailable("the program ends"))
            raise

    def _next_batch(self) -> list[Waiting]:
        batch, self._waiting = self._waiting[:LARGEST_BATCH], self._waiting[LARGEST_BATCH:]
        return batch

    # --- Workers and what they leave ---------------------------------------------------------------------------------

    async def enter(self, worker_id: str, now_ms: int) -> None:
        """A worker begins."""
        self._database.presence.enter(worker_id)
        await self.beat(worker_id, now_ms)

    async def beat(self, worker_id: str, now_ms: int) -> None:
        """A worker says that it lives."""
        row = {"id": worker_id, "now": now_ms}
        await self._database.write(lambda connection: run_many(connection, BEAT, [row]))

    async def leave(self, worker_id: str) -> None:
        """A worker ends, or has died, and has nothing left."""
        row = {"id": worker_id}
        if await self._database.write(lambda connection: [*rows_of(connection, LEAVE, row)]):
            self._database.presence.leave(worker_id)  # otherwise its file tells who starts next what it has left

    def dead(self) -> list[str]:
        """Workers that are known to have died, where that can be known at once."""
        return self._database.presence.dead()

    async def held_by(self, worker_id: str) -> list[HoldRow]:
        """Holds of one worker."""
        row = {"id": worker_id}
        return await self._database.read(lambda connection: [_hold(found) for found in rows_of(connection, HELD, row)])

    async def held(self, request_id: str) -> HoldRow | None:
        """The hold of one request, if there is one."""
        found = await self._database.read(lambda connection: rows_of(connection, ONE_HOLD, {"id": request_id}))
        return _hold(found[0]) if found else None

    async def orphans(self, seen_before_ms: int) -> list[HoldRow]:
        """Holds of workers that have not been seen since then."""
        rows = {"before": seen_before_ms}
        return await self._database.read(lambda connection: [_hold(row) for row in rows_of(connection, ORPHANS, rows)])

    async def forget_workers(self, seen_before_ms: int) -> None:
        """Removes workers that have not been seen since then and hold nothing."""
        row = {"before": seen_before_ms}
        await self._database.write(lambda connection: run_many(connection, FORGET_WORKERS, [row]))


def _is_large(batch: Sequence[Waiting]) -> bool:
    """Whether there is more in it than numbers and names: what was said may be megabytes, and the loop would stand."""
    return any(type(write) is Settlement and write.also for write, _ in batch)


def _writing(batch: Sequence[Waiting]) -> Work[list[Any]]:
    writes = [write for write, _ in batch]
    return lambda connection: write_account(connection, writes)


def _answer(batch: Sequence[Waiting], answers: Sequence[Any]) -> None:
    for (_, future), answer in zip(batch, answers, strict=True):
        if not future.done():
            future.set_result(answer)


def _is_one_s_fault(batch: Sequence[Waiting], exc: Exception) -> bool:
    """Whether one of the writes has made all of them fail: a mistake of ours, which the others need not pay for."""
    return len(batch) > 1 and not isinstance(exc, StoreUnavailable)


def _refuse(batch: Sequence[Waiting], exc: Exception) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(exc)


def _hold(row: Sequence[Any]) -> HoldRow:
    request_id, worker_id, created_ms, account, prompt_tokens, completion_tokens = row
    return HoldRow(
        request_id=request_id,
        worker_id=worker_id,
        created_ms=created_ms,
        account=json.decode(account, type=HoldAccount),
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
    )


BEAT: Final = (
    "INSERT INTO workers (id, started_ms, seen_ms) VALUES (:id, :now, :now) "
    "ON CONFLICT (id) DO UPDATE SET seen_ms = excluded.seen_ms"
)
LEAVE: Final = (
    "DELETE FROM workers WHERE id = :id AND NOT EXISTS (SELECT 1 FROM holds WHERE holds.worker_id = workers.id) "
    "RETURNING id"
)
ONE_HOLD: Final = (
    "SELECT request_id, worker_id, created_ms, account, prompt_tokens, completion_tokens FROM holds "
    "WHERE request_id = :id"
)
HELD: Final = (
    "SELECT request_id, worker_id, created_ms, account, prompt_tokens, completion_tokens FROM holds "
    "WHERE worker_id = :id"
)
ORPHANS: Final = (
    "SELECT request_id, worker_id, created_ms, account, prompt_tokens, completion_tokens FROM holds "
    "WHERE NOT EXISTS (SELECT 1 FROM workers WHERE workers.id = holds.worker_id AND workers.seen_ms >= :before)"
)
FORGET_WORKERS: Final = (
    "DELETE FROM workers WHERE seen_ms < :before "
    "AND NOT EXISTS (SELECT 1 FROM holds WHERE holds.worker_id = workers.id)"
)
