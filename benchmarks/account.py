"""What the account costs: one hold and one posting a request, on SQLite and on PostgreSQL, without HTTP around it.

    python benchmarks/account.py [--requests 4000] [--postgres URL] [--json FILE]

Requests come from 1, 4, 16 and 64 clients that each wait for their own, as connections do; those that arrive together
share a transaction. CPU is that of this process, which on PostgreSQL is not the server's own. `power` is SQLite with
`store.durability = "power"`: every commit waits for the disk. With a budget each request also moves a balance.

The design's measure (issue 5): 11 µs a request at 16 clients for a bare hold and settlement in SQLite's driver, 54 with
a commit a row. The same by hand, with nothing of the house around it, is the column `bare`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sqlite3
import sys
import tempfile
import time
from pathlib import Path
from secrets import token_hex

import asyncpg
import uvloop
from sqlalchemy import make_url

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from chatport.ids import fresh
from chatport.policy.ledger import Ledger
from chatport.policy.meter import Going
from chatport.store import open_store
from chatport.store.sqlite import Durability
from chatport.targets import Bound
from chatport.wire.tally import usage_of
from support.accounts import budget, ledger_over, meter

CLIENTS = (1, 4, 16, 64)
BOUND = Bound(prompt_tokens=40, output_tokens=64, counted_by="bytes")
POSTGRES = "postgresql://postgres@127.0.0.1:5432/postgres"


async def one(ledger: Ledger) -> None:
    """A request's part of the account."""
    async with meter(ledger, id=fresh("req_")) as mine:
        await mine.cover(Going(model="m", target="t", bound=BOUND, choices=1, attempt=1))
        await mine.settle(usage_of(10, 20))


async def measured(ledger: Ledger, clients: int, requests: int) -> tuple[float, float]:
    """Microseconds of CPU a request, and requests a second."""

    async def client() -> None:
        for _ in range(requests // clients):
            await one(ledger)

    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(client() for _ in range(clients)))
    done = requests // clients * clients
    return (time.process_time() - cpu) / done * 1e6, done / (time.perf_counter() - began)


async def on(url: str, requests: int, durability: Durability = "process", *, paying: bool) -> list[dict[str, float]]:
    async with open_store(url, durability=durability) as store:
        ledger = ledger_over(store)
        if paying:
            await store.budgets.add(budget(amount=10**15), "benchmark")
            await ledger.budgets.load()
        await measured(ledger, 4, 200)
        rows = []
        for clients in CLIENTS:
            cpu, rate = await measured(ledger, clients, requests)
            rows.append({"clients": clients, "cpu_us": round(cpu, 1), "per_second": round(rate)})
        return rows


def bare(folder: Path, requests: int) -> list[dict[str, float]]:
    """Insert, delete, insert in transactions of as many requests as there are clients, on the driver alone."""
    connection = sqlite3.connect(folder / "bare.db", isolation_level=None)
    for statement in (
        "PRAGMA journal_mode = WAL", "PRAGMA synchronous = NORMAL", "PRAGMA wal_autocheckpoint = 0",
        "CREATE TABLE holds (id TEXT PRIMARY KEY, account BLOB)",
        "CREATE TABLE postings (sequence INTEGER PRIMARY KEY, id TEXT UNIQUE, tokens INTEGER, charge INTEGER)",
    ):  # fmt: skip
        connection.execute(statement)
    rows = []
    for clients in CLIENTS:
        began, cpu = time.perf_counter(), time.process_time()
        for _ in range(requests // clients):
            ids = [(fresh("req_"),) for _ in range(clients)]
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("INSERT INTO holds VALUES (?, x'00')", ids)
            connection.execute("COMMIT")
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("DELETE FROM holds WHERE id = ?", ids)
            connection.executemany("INSERT INTO postings (id, tokens, charge) VALUES (?, 30, 7)", ids)
            connection.execute("COMMIT")
        done = requests // clients * clients
        rows.append({
            "clients": clients, "cpu_us": round((time.process_time() - cpu) / done * 1e6, 1),
            "per_second": round(done / (time.perf_counter() - began)),
        })  # fmt: skip
    connection.close()
    return rows


async def run(requests: int, postgres: str) -> dict[str, list[dict[str, float]]]:
    found: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found["bare"] = bare(folder, requests)
        found["sqlite"] = await on(f"sqlite:///{folder}/a.db", requests, paying=False)
        found["sqlite, a budget"] = await on(f"sqlite:///{folder}/b.db", requests, paying=True)
        found["sqlite, power"] = await on(f"sqlite:///{folder}/c.db", requests // 4, "power", paying=False)
    database = f"chatport_bench_{token_hex(4)}"
    server = await asyncpg.connect(postgres, timeout=5)
    await server.execute(f"CREATE DATABASE {database}")
    try:
        url = make_url(postgres).set(database=database).render_as_string(hide_password=False)
        found["postgresql"] = await on(url, requests // 2, paying=False)
        found["postgresql, a budget"] = await on(url, requests // 2, paying=True)
    finally:
        await server.execute(f"DROP DATABASE {database} WITH (FORCE)")
        await server.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=4000)
    parser.add_argument("--postgres", default=POSTGRES)
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    arguments = parser.parse_args()
    found = uvloop.run(run(arguments.requests, arguments.postgres))
    print(f"{'':22}" + "".join(f"{clients:>8} clients" for clients in CLIENTS) + "   (CPU µs a request, requests/s)")
    for name, rows in found.items():
        print(f"{name:22}" + "".join(f"{row['cpu_us']:>8.1f} {row['per_second']:>7.0f}" for row in rows))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
