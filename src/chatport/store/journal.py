"""Everything that requests write, in groups.

What arrives in one turn of the event loop, or while a write is under way, is one transaction (`books.py`). A write that
has begun is carried through, whatever becomes of the caller.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, Final, cast

from msgspec import json

from chatport.store.account import Answer, Checkpoint, Hold, HoldAccount, HoldRow, Settlement, Write
from chatport.store.books import write_account
from chatport.store.database import Database, rows_of, run_many

LARGEST_BATCH: Final = 512
"""Writes in one transaction: bounds how long the first of them waits."""


class Journal:
    """Everything that requests write. Calls may raise StoreUnavailable; then it is not known whether it was written,
    and settling again is harmless."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: deque[tuple[Write, asyncio.Future[Any]]] = deque()
        self._writing: asyncio.Task[None] | None = None

    async def hold(self, hold: Hold) -> Answer:
        """Places a hold, or changes it."""
        return cast("Answer", await self._submit(hold))

    async def checkpoint(self, checkpoint: Checkpoint) -> None:
        """Notes how far an answer is."""
        await self._submit(checkpoint)

    async def settle(self, settlement: Settlement) -> bool:
        """Posts a request. False: it was posted already."""
        return cast("bool", await self._submit(settlement))

    async def _submit(self, write: Write) -> Any:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((write, future))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_all(), name="account")
        return await future

    async def _write_all(self) -> None:
        """Writes until nothing waits; what comes meanwhile is the next transaction."""
        try:
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), LARGEST_BATCH))]
                await self._write_batch(batch)
        finally:
            self._writing = None

    async def _write_batch(self, batch: list[tuple[Write, asyncio.Future[Any]]]) -> None:
        writes = [write for write, _ in batch]
        try:
            answers = await self._database.write(lambda connection: write_account(connection, writes))
        except Exception as exc:  # noqa: BLE001  whatever it is, it belongs to those who wait
            for _, future in batch:
                if not future.done():
                    future.set_exception(exc)
            return
        for (_, future), answer in zip(batch, answers, strict=True):
            if not future.done():
                future.set_result(answer)

    # --- Workers and what they leave ---------------------------------------------------------------------------------

    async def beat(self, worker_id: str, now_ms: int) -> None:
        """A worker says that it lives."""
        row = {"id": worker_id, "now": now_ms}
        await self._database.write(lambda connection: run_many(connection, BEAT, [row]))

    async def leave(self, worker_id: str) -> None:
        """A worker ends, and has nothing left."""
        await self._database.write(lambda connection: run_many(connection, LEAVE, [{"id": worker_id}]))

    async def orphans(self, seen_before_ms: int) -> list[HoldRow]:
        """Holds of workers that have not been seen since then."""
        rows = {"before": seen_before_ms}
        return await self._database.read(lambda connection: [_hold(row) for row in rows_of(connection, ORPHANS, rows)])

    async def forget_workers(self, seen_before_ms: int) -> None:
        """Removes workers that have not been seen since then and hold nothing."""
        row = {"before": seen_before_ms}
        await self._database.write(lambda connection: run_many(connection, FORGET_WORKERS, [row]))


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
    "DELETE FROM workers WHERE id = :id AND NOT EXISTS (SELECT 1 FROM holds WHERE holds.worker_id = workers.id)"
)
ORPHANS: Final = (
    "SELECT request_id, worker_id, created_ms, account, prompt_tokens, completion_tokens FROM holds "
    "WHERE NOT EXISTS (SELECT 1 FROM workers WHERE workers.id = holds.worker_id AND workers.seen_ms >= :before)"
)
FORGET_WORKERS: Final = (
    "DELETE FROM workers WHERE seen_ms < :before "
    "AND NOT EXISTS (SELECT 1 FROM holds WHERE holds.worker_id = workers.id)"
)
