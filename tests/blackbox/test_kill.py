"""The program killed at random instants under load, and what the account says afterwards.

Rounds: `CHATPORT_TEST_KILLS` (20 on SQLite and 4 on PostgreSQL, unless it is set: then as many on each);
`CHATPORT_TEST_SEED` repeats a run as far as the machine lets it.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
from collections import Counter
from pathlib import Path

import pytest

from support.books import books, compare, settled
from support.counted import counted
from support.crowd import Crowd, crowd
from support.databases import session_postgres, store_url
from support.lives import NewKey, Program, configured, living, prepared

__all__ = ["session_postgres", "store_url"]

ROUNDS = {"sqlite": 20, "postgresql": 4}
CLIENTS = 12
LIFE = 0.5
"""Seconds of load before a kill, at most."""


def rounds(url: str) -> int:
    return int(os.environ.get("CHATPORT_TEST_KILLS") or ROUNDS[url.partition(":")[0]])


def new_seed() -> int:
    seed = int(os.environ.get("CHATPORT_TEST_SEED") or secrets.randbelow(1 << 32))
    print(f"CHATPORT_TEST_SEED={seed}")
    return seed


@pytest.mark.timeout(3600)
async def test_killed_at_any_instant_every_request_is_posted_once(
    tmp_path: Path, store_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = random.Random(new_seed())
    times = rounds(store_url)
    free = NewKey("free")
    rich = NewKey("rich", amount=10**9)
    # Runs out of it half-way, so that requests wait, are limited, cut and refused, too.
    poor = NewKey("poor", amount=times * 150)
    await prepared(store_url, free, rich, poor)
    checkpoints: dict[str, int] = {}
    async with counted(pause=0.001) as upstream:
        models = [upstream.model(name) for name in ("says", "silent", "breaks")]
        models.append(upstream.model("falls", "fails", "says", attempts=2))
        program = Program(tmp_path / "home", configured(store_url, *models))
        names = ["says", "says", "silent", "falls", "breaks"]
        async with crowd(program.url, [free, rich, poor], names, rng) as clients:
            for _ in range(times):
                await program.start()
                checkpoints |= await one_life(program, clients, store_url)
        async with living(program):
            read = await settled(store_url)
    compare(read, upstream, clients, checkpoints)
    endings = Counter(posting.ending for posting in read.postings.values())
    statuses = Counter(had.status for had in clients.had)
    with capsys.disabled():
        print(f"\n{times} kills, {len(upstream.served)} served; replies: {dict(statuses)}; posted: {dict(endings)}")
    assert endings["complete"] > times
    assert endings["crash"] > times // 2


async def one_life(program: Program, clients: Crowd, store_url: str) -> dict[str, int]:
    """Clients until the server is killed; what it left under way."""
    dead = asyncio.Event()
    working = asyncio.create_task(clients.many(CLIENTS, dead.is_set))
    await asyncio.wait({working}, timeout=clients.rng.uniform(0.02, LIFE))
    await program.kill()
    dead.set()
    await working
    return (await books(store_url)).checkpoints
