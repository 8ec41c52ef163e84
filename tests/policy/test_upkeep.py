"""The account's upkeep: everything is done, a little at a time."""

from __future__ import annotations

import pytest

from chatport.policy.upkeep import DAY_MS, Upkeep
from chatport.store.contents import ContentRow, keeping
from support.memory import memory_store
from support.postings import post


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chatport.policy.upkeep.BATCH", 2)


async def test_a_turn_rolls_up_and_drops_what_is_old_a_little_at_a_time() -> None:
    store, database = memory_store()
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    for day in range(7):
        content = ContentRow(request_id=f"r{day}", request=b"", reply=None, expires_at=day * 86_400)
        await post(store, f"r{day}", created_ms=day * DAY_MS, also=(keeping(content),))
    before = await store.usage.sums("key")
    await Upkeep(store, 3, sleep).turn(now=6.5 * 86_400)
    assert database.peek("SELECT id FROM postings ORDER BY id") == [("r4",), ("r5",), ("r6",)]
    assert database.peek("SELECT request_id FROM contents ORDER BY 1") == []
    assert database.peek("SELECT sum(requests) FROM usage_hours") == [(7,)]
    assert await store.usage.sums("key") == before
    assert len(pauses) >= 5


async def test_without_days_every_record_stays() -> None:
    store, database = memory_store()
    for _ in range(5):
        await post(store)
    await Upkeep(store, None).turn(now=1e10)
    assert database.peek("SELECT count(*) FROM postings") == [(5,)]
    assert database.peek("SELECT revision FROM revisions WHERE topic = 'usage'") == [(5,)]
