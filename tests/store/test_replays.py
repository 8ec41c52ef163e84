"""Replies for idempotency keys, as rows."""

from __future__ import annotations

import pytest
from msgspec import structs

from chatport.store import Store
from chatport.store.keys import KeyRow
from chatport.store.replays import ReplayRow, keeping
from support.accounts import written

ROW = ReplayRow(
    key_id="key_1",
    name_digest=b"\x00" * 32,
    request_digest=b"\xff" * 32,
    content_type="text/event-stream; charset=utf-8",
    body=bytes(range(256)),
    created_at=1000,
)


@pytest.fixture
async def filled(store: Store) -> Store:
    await store.keys.add(
        KeyRow(id="key_1", name="n", digest=b"1" * 32, prefix="sk-cp-", admin=False, models=None, created_at=1)
    )
    await written(store, keeping(ROW))
    return store


async def test_a_reply_comes_back_byte_for_byte(filled: Store) -> None:
    assert await filled.replays.get("key_1", ROW.name_digest, after=999) == ROW


async def test_an_old_reply_is_not_there(filled: Store) -> None:
    assert await filled.replays.get("key_1", ROW.name_digest, after=1000) is None


async def test_names_are_each_keys_own(filled: Store) -> None:
    assert await filled.replays.get("key_2", ROW.name_digest, after=0) is None
    assert await filled.replays.get("key_1", b"\x01" * 32, after=0) is None


async def test_a_later_reply_takes_the_place_of_an_earlier(filled: Store) -> None:
    later = structs.replace(ROW, body=b"later", request_digest=b"\x02" * 32, created_at=2000)
    await written(filled, keeping(later))
    assert await filled.replays.get("key_1", ROW.name_digest, after=0) == later


async def test_pruning_removes_the_old_and_nothing_else(filled: Store) -> None:
    young = structs.replace(ROW, name_digest=b"\x01" * 32, created_at=1001)
    await written(filled, keeping(young))
    assert await filled.replays.prune(1000) == 1
    assert await filled.replays.get("key_1", ROW.name_digest, after=0) is None
    assert await filled.replays.get("key_1", young.name_digest, after=0) == young
