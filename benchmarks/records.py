"""How fast a big account answers: builds millions of records in SQLite, then asks what operators ask.

    .venv/bin/python benchmarks/records.py                        # 10,000,000 records: some ten minutes, 4 GB of disk
    .venv/bin/python benchmarks/records.py --records 1000000

The records are written as the ledger writes them, with plain inserts, spread over 90 days, over keys, owners, models
and end users by a skewed distribution; usage is rolled up by the server's own code. The goal is less than a second for
each question. Memory stays small, whatever the number: records are made and written a batch at a time.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sqlite3
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from msgspec import structs

from chatport.policy.upkeep import BATCH
from chatport.store import Store, open_store
from chatport.store.account import PostingRow
from chatport.store.books import INSERT_ENTRY, INSERT_POSTING
from chatport.store.budgets import BudgetRow

DAYS = 90
START = 1_790_000_000 // 86_400 * 86_400
KEYS, OWNERS, MODELS, END_USERS = 200, 40, 6, 300
BUDGETS = 50
WRITTEN_AT_ONCE = 20_000


def skewed(rng: random.Random, count: int) -> int:
    """A number below `count`; small ones are far more frequent."""
    return int(count * rng.random() ** 3)


def records(count: int, rng: random.Random) -> Iterator[PostingRow]:
    """Requests in the order in which they ended."""
    for number in range(count):
        key = skewed(rng, KEYS)
        created = START * 1000 + number * DAYS * 86_400_000 // count
        prompt, completion = rng.randrange(20, 4000), rng.randrange(1, 1000)
        cost = prompt * 150 + completion * 600
        yield PostingRow(
            id=f"req_{rng.getrandbits(96):024x}",
            created_ms=created,
            settled_ms=created + 2000,
            key_id=f"key_{key}",
            owner=f"owner_{key % OWNERS}",
            end_user=f"user_{skewed(rng, END_USERS)}" if key % 20 == 0 else None,
            model=f"model_{skewed(rng, MODELS)}",
            target="upstream",
            attempts=1,
            streamed=bool(number & 1),
            prompt_tokens=prompt,
            completion_tokens=completion,
            held_nano=cost * 2,
            cost_nano=cost,
            charge_nano=cost,
            price_id="price_1",
            ending="complete" if number % 50 else "client_gone",
            queue_ms=1,
            first_ms=300,
            total_ms=2000,
        )


def write(path: Path, count: int) -> None:
    """The records, and what they took from the budgets of some keys."""
    rng = random.Random(1)
    connection = sqlite3.connect(path, isolation_level=None)
    for pragma in ("synchronous = OFF", "cache_size = -400000"):
        connection.execute(f"PRAGMA {pragma}")
    posted: dict[str, int] = {}
    made = records(count, rng)
    sequence = 0
    while batch := [row for _, row in zip(range(WRITTEN_AT_ONCE), made, strict=False)]:
        connection.execute("BEGIN")
        connection.executemany(INSERT_POSTING.by_place, map(structs.astuple, batch))
        entries = []
        for row in batch:
            sequence += 1
            key = int(str(row.key_id).removeprefix("key_"))
            if key < BUDGETS:
                entries.append(
                    {"budget_id": f"bud_{key}", "period": 0, "sequence": sequence, "amount": row.charge_nano}
                )
                posted[f"bud_{key}"] = posted.get(f"bud_{key}", 0) + row.charge_nano
        connection.executemany(INSERT_ENTRY, entries)
        connection.execute("COMMIT")
    connection.executemany("INSERT INTO balances VALUES (?, 0, ?, 0, 0)", posted.items())
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


async def timed(name: str, work: Callable[[], Awaitable[Any]]) -> None:
    times = []
    for _ in range(3):
        began = time.perf_counter()
        await work()
        times.append(time.perf_counter() - began)
    print(f"{name:46} {sorted(times)[1] * 1000:9.1f} ms", flush=True)


async def ask(store: Store, path: Path, count: int) -> None:
    now = START + DAYS * 86_400
    with sqlite3.connect(path) as raw:
        some = raw.execute("SELECT id FROM postings WHERE sequence = ?", (count // 2,)).fetchone()[0]
        [(hours, days)] = raw.execute("SELECT (SELECT count(*) FROM usage_hours), (SELECT count(*) FROM usage_days)")
    raw.close()
    print(f"{hours} rows in usage_hours, {days} in usage_days, {path.stat().st_size / 2**20:.0f} MiB")
    await timed("one request with all that belongs to it", lambda: store.records.one(some))
    for since, span in ((0, "of all time"), (now - 30 * 86_400, "of 30 days"), (now - 86_400, "of a day")):
        for by in ("key", "owner", "user", "model", "day"):
            await timed(f"usage by {by} {span}", lambda by=by, since=since: store.usage.sums(by, since))  # type: ignore[misc]
    await timed("usage of one key, 30 days", lambda: store.usage.sums("day", now - 30 * 86_400, "key_7"))


async def main(count: int, folder: Path) -> None:
    path = folder / "records.db"
    async with open_store(f"sqlite:///{path}") as store:
        for number in range(BUDGETS):
            row = BudgetRow(
                id=f"bud_{number}",
                kind="key",
                subject=f"key_{number}",
                unit="nano",
                amount=1 << 62,
                period="once",
                created_at=START,
            )
            await store.budgets.add(row, "benchmark")
    began = time.perf_counter()
    write(path, count)
    print(f"{count} records written in {time.perf_counter() - began:.0f} s")
    async with open_store(f"sqlite:///{path}") as store:
        began, slowest, upto = time.perf_counter(), 0.0, await store.usage.horizon()
        more = True
        while more:
            before = time.perf_counter()
            more = await store.usage.roll_up(upto, BATCH)
            slowest = max(slowest, time.perf_counter() - before)
        spent = time.perf_counter() - began
        batches = -(-count // BATCH)
        print(
            f"rolled up in {spent:.0f} s: {spent / batches * 1000:.1f} ms for {BATCH}, {slowest * 1000:.0f} ms at most"
        )
        await ask(store, path, count)
        began = time.perf_counter()
        proof = await store.prover.verify()
        print(f"ledger verify: {time.perf_counter() - began:.1f} s, {len(proof.differences)} differences")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=10_000_000)
    parser.add_argument("--folder", type=Path, help="where the database is built and left; default: a temporary folder")
    options = parser.parse_args()
    if options.folder is not None:
        options.folder.mkdir(parents=True)
        asyncio.run(main(options.records, options.folder))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            asyncio.run(main(options.records, Path(temporary)))
