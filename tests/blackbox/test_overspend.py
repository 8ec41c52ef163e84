"""A thousand requests at once, against a budget that pays for a hundred of them."""

from __future__ import annotations

import asyncio
import random
import re
import resource
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from chatport.store import Store, open_store
from support.books import compare, settled
from support.counted import PROMPT, counted
from support.crowd import Crowd, Had, crowd
from support.databases import session_postgres, store_url
from support.lives import NewKey, Program, configured, living, prepared

__all__ = ["session_postgres", "store_url"]

REQUESTS = 1000
WORDS = 12
LIMIT = 100 * (PROMPT + WORDS)
BOUND = 64 + 16 + len("Count.")
"""Tokens that the prompt is held at: its bytes, and what a template may add."""

EVERY = 0.003
"""Seconds between two looks at the balance."""

LEDGER = "[ledger]\nlease_seconds = 5\nslice_tokens = 16\nbudget_wait = 12\n"
USED = re.compile(r"\((\d+) tokens of (\d+) tokens used; this request needs up to (\d+) tokens\)")


class Watched(Struct):
    """What somebody saw who looked all the time."""

    looks: int = 0
    most: int = 0
    """Of the budget, posted and held together."""
    most_held: int = 0


@asynccontextmanager
async def watching(store: Store, budget_id: str) -> AsyncIterator[Watched]:
    seen = Watched()

    async def look() -> None:
        while True:
            [balance] = await store.budgets.balances([(budget_id, 0)])
            seen.looks += 1
            seen.most = max(seen.most, balance.posted + balance.held)
            seen.most_held = max(seen.most_held, balance.held)
            await asyncio.sleep(EVERY)

    task = asyncio.create_task(look())
    try:
        yield seen
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def ask_all(clients: list[Crowd], key: NewKey) -> None:
    """Everybody at once: half of them streams, half of them with a limit of their own."""

    async def ask(number: int) -> None:
        fields: dict[str, Any] = {"model": "says", "seed": WORDS, "stream": number % 2 == 0}
        if number % 4 < 2:
            fields["max_completion_tokens"] = WORDS
        had = await clients[number % len(clients)].ask(key, **fields)
        assert had is not None, "a request was not answered"

    async with asyncio.TaskGroup() as group:
        for number in range(REQUESTS):
            group.create_task(ask(number))


@pytest.mark.parametrize("servers", [1, 2])
async def test_a_budget_is_spent_to_its_end_and_not_further(
    tmp_path: Path, store_url: str, servers: int, capsys: pytest.CaptureFixture[str]
) -> None:
    if servers > 1 and store_url.startswith("sqlite"):
        pytest.skip("several servers share a PostgreSQL")
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    key = NewKey("poor", amount=LIMIT)
    await prepared(store_url, key)
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(counted(pause=0.001))
        store = await stack.enter_async_context(open_store(store_url))
        more = f"[server]\nmax_connections = {2 * REQUESTS}\n"
        config = configured(store_url, upstream.model("says"), ledger=LEDGER, more=more)
        clients: list[Crowd] = []
        for number in range(servers):
            program = await stack.enter_async_context(living(Program(tmp_path / str(number), config)))
            # Several each: a pool of a thousand connections is slow to find one.
            clients += [
                await stack.enter_async_context(crowd(program.url, [key], ["says"], random.Random(0)))
                for _ in range(8 // servers)
            ]
        async with watching(store, "bud_poor") as seen:
            await ask_all(clients, key)
        read = await settled(store_url)
    replies = [had for each in clients for had in each.had]
    for each in clients:
        compare(read, upstream, each, {})
    check(replies, seen, read.balances[0].posted)
    with capsys.disabled():
        statuses = Counter(had.status for had in replies)
        print(f"\n{servers} on {store_url[:6]}: {dict(statuses)}, {seen}, posted {read.balances[0].posted} of {LIMIT}")


def check(replies: list[Had], seen: Watched, posted: int) -> None:
    assert len(replies) == REQUESTS
    failed = [had for had in replies if had.status not in {200, 401, 429}]
    assert not failed, [(had.message, had.headers) for had in failed]
    assert seen.looks > 50
    assert seen.most <= LIMIT
    assert seen.most_held > 2 * BOUND, "they did not run beside each other"
    served = [had for had in replies if had.status == 200]
    assert all(had.whole for had in served)
    assert LIMIT - posted <= BOUND + WORDS, "another one could have been paid for"
    assert sum(PROMPT + had.words for had in served) <= posted + len(served) * BOUND
    for had in replies:
        if had.status == 401:
            assert had.code == "insufficient_quota"
            found = USED.search(had.message)
            assert found is not None, had.message
            used, limit, needed = map(int, found.groups())
            assert limit - used < needed, had.message
        elif had.status == 429:
            assert int(had.headers["retry-after"]) >= 1
