"""What is done to the account in the background: usage is rolled up, and old records go.

In small transactions with a pause after each: the writer is held for a few milliseconds at a time, and requests have
it in between. Several servers on one database may do it at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from chatport.store import Store

ROLL_UP_EVERY: Final = 60.0
"""Seconds between two roll-ups: how many postings a query for usage has to add up by itself."""

BATCH: Final = 500
"""Postings in one transaction: 3 to 5 ms on SQLite."""

PAUSE: Final = 0.02
"""Seconds between two transactions."""

DAY_MS: Final = 86_400_000


class Upkeep:
    """`keep_days`: of the records; None: for ever. What it does may raise StoreUnavailable."""

    def __init__(
        self, store: Store, keep_days: int | None, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self._store = store
        self._keep_days = keep_days
        self._sleep = sleep

    async def turn(self, now: float) -> None:
        """Everything that is to be done now. `now`: Unix seconds."""
        await self.roll_up()
        await self.drop_old(now)
        await self.drop_contents(now)

    async def roll_up(self) -> None:
        """Brings the sums up to what is posted when it begins."""
        usage = self._store.usage
        upto = await usage.horizon()
        while await usage.roll_up(upto, BATCH):
            await self._sleep(PAUSE)

    async def drop_old(self, now: float) -> None:
        """Removes the records of requests that were settled more than `keep_days` ago."""
        if self._keep_days is None:
            return
        before_ms = int(now * 1000) - self._keep_days * DAY_MS
        while await self._store.retention.drop(before_ms, BATCH):
            await self._sleep(PAUSE)

    async def drop_contents(self, now: float) -> None:
        """Removes contents whose time is over."""
        while await self._store.contents.prune(int(now), BATCH) == BATCH:
            await self._sleep(PAUSE)
