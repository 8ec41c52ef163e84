"""Usage as it is told."""

from __future__ import annotations

from chatport.policy.usage import usage_by
from chatport.store.keys import KeyRow
from support.memory import memory_store
from support.postings import HOUR_MS, post


async def test_groups_are_told_by_their_names() -> None:
    store, _ = memory_store()
    key = KeyRow(id="key_1", name="laptop", digest=b"d", prefix="sk", admin=False, models=None, created_at=1)
    await store.keys.add(key)
    await post(store, owner="alice")
    await post(store, created_ms=25 * HOUR_MS, key_id="key_gone", charge_nano=1)
    assert [(each.group, each.name) for each in await usage_by(store, "key", 0)] == [
        ("key_1", "laptop"),
        ("key_gone", None),
    ]
    assert [each.group for each in await usage_by(store, "owner", 0)] == ["alice", None]
    assert [each.group for each in await usage_by(store, "day", 0)] == ["1970-01-01", "1970-01-02"]
