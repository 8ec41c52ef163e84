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
from support.counted import WORDS, counted
from support.crowd import Crowd, crowd
from support.databases import emptied, session_postgres, store_url
from support.lives import NewKey, Program, configured, living, prepared

__all__ = ["session_postgres", "store_url"]

ROUNDS = {"sqlite": 20, "postgresql": 4}
CLIENTS = 12
LIFE = 0.5
"""Seconds of load before a kill, at most."""
LONG_LIFE = 1.5
"""The same, of each fifth life: long enough to settle what dead ones have left while there is load."""


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
            for number in range(times):
                await program.start()
                life = rng.uniform(0.02, LIFE) if number % 5 else LONG_LIFE
                checkpoints |= await one_life(program, clients, life, store_url)
        async with living(program):
            read = await settled(store_url)
    compare(read, upstream, clients, checkpoints)
    endings = Counter(posting.ending for posting in read.postings.values())
    statuses = Counter(had.status for had in clients.had)
    with capsys.disabled():
        print(f"\n{times} kills, {len(upstream.served)} served; replies: {dict(statuses)}; posted: {dict(endings)}")
    assert endings["complete"] > times
    assert endings["crash"] > times // 2


async def one_life(program: Program, clients: Crowd, seconds: float, store_url: str) -> dict[str, int]:
    """Clients for so many seconds, until the server is killed; what it left under way."""
    dead = asyncio.Event()
    working = asyncio.create_task(clients.many(CLIENTS, dead.is_set))
    await asyncio.wait({working}, timeout=seconds)
    await program.kill()
    dead.set()
    await working
    return (await books(store_url)).checkpoints


async def test_who_lives_settles_for_who_was_killed_and_for_nobody_else(tmp_path: Path, session_postgres: str) -> None:
    """Two servers over one database: one dies, the other has answers that take longer than a lease."""
    await emptied(session_postgres)
    keys = [NewKey("free"), NewKey("rich", amount=10**9)]
    await prepared(session_postgres, *keys)
    async with counted(pause=0.03) as upstream:
        config = configured(session_postgres, upstream.model("says"))
        lives, dies = Program(tmp_path / "lives", config), Program(tmp_path / "dies", config)
        async with (
            living(lives),
            crowd(lives.url, keys, ["says"], random.Random(0)) as there,
            crowd(dies.url, keys, ["says"], random.Random(0)) as gone,
        ):
            await dies.start()
            asked = [(clients, key) for clients in (there, gone) for key in keys for _ in range(3)]
            tasks = [
                asyncio.create_task(clients.ask(key, model="says", seed=WORDS, stream=True)) for clients, key in asked
            ]
            await asyncio.sleep(0.7)
            await dies.kill()
            checkpoints = (await books(session_postgres)).checkpoints
            await asyncio.gather(*tasks)
            read = await settled(session_postgres, within=5)
    compare(read, upstream, there, checkpoints)
    compare(read, upstream, gone, checkpoints)
    assert {read.postings[had.request_id].ending for had in there.had} == {"complete"}
    assert {read.postings[had.request_id].ending for had in gone.had} == {"crash"}
    assert len(gone.had) == 6
