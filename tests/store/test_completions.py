"""Stored completions as rows."""

from __future__ import annotations

import pytest
from msgspec import structs
from sqlalchemy import select

from chatport.store import Store
from chatport.store.completions import CompletionRow, Selection, keeping
from chatport.store.keys import KeyRow
from chatport.store.schema import completion_tags
from support.accounts import written

KEY = KeyRow(id="key_1", name="n", digest=b"1" * 32, prefix="sk-cp-", admin=False, models=None, created_at=1)
ROW = CompletionRow(
    id="chatcmpl-1",
    key_id="key_1",
    created_at=1_700_000_000,
    model="smollm2-135m",
    requested_model="gpt-4",
    body=b'{"content":"a\x00b \xf0\x9f\x90\xa2"}',
    metadata={"topic": "turtles", "nul\0": "\0", "": "empty"},
)


@pytest.fixture
async def filled(store: Store) -> Store:
    await store.keys.add(KEY)
    await store.keys.add(structs.replace(KEY, id="key_2", digest=b"2" * 32))
    await written(store, keeping(ROW, b'["\x00"]'))
    return store


async def test_a_row_comes_back_byte_for_byte(filled: Store) -> None:
    row = await filled.completions.get("key_1", "chatcmpl-1")
    assert row is not None
    assert row == structs.replace(ROW, sequence=row.sequence)
    assert await filled.completions.messages("key_1", "chatcmpl-1") == b'["\x00"]'


@pytest.mark.parametrize(
    ("key_id", "completion_id"),
    [("key_2", "chatcmpl-1"), ("key_1", "chatcmpl-2"), ("key_1", "chat\0"), ("key_1", "\udc80"), ("", "")],
)
async def test_what_is_not_there_is_none(filled: Store, key_id: str, completion_id: str) -> None:
    assert await filled.completions.get(key_id, completion_id) is None
    assert await filled.completions.messages(key_id, completion_id) is None
    assert await filled.completions.set_metadata(key_id, completion_id, {"a": "b"}) is None
    assert not await filled.completions.remove(key_id, completion_id)
    row = await filled.completions.get("key_1", "chatcmpl-1")
    assert row is not None
    assert row.metadata == ROW.metadata


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (Selection(key_id="key_1", limit=5), 1),
        (Selection(key_id="key_2", limit=5), 0),
        (Selection(key_id="key_1", limit=0), 0),
        (Selection(key_id="key_1", limit=5, model="gpt-4"), 1),
        (Selection(key_id="key_1", limit=5, model="smollm2-135m"), 1),
        (Selection(key_id="key_1", limit=5, model="gpt"), 0),
        (Selection(key_id="key_1", limit=5, model="gpt-4\0"), 0),
        (Selection(key_id="key_1", limit=5, metadata={"topic": "turtles"}), 1),
        (Selection(key_id="key_1", limit=5, metadata={"topic": "turtles", "": "empty"}), 1),
        (Selection(key_id="key_1", limit=5, metadata={"topic": "turtles", "other": "x"}), 0),
        (Selection(key_id="key_1", limit=5, metadata={"topic": "Turtles"}), 0),
        (Selection(key_id="key_1", limit=5, metadata={"turtles": "topic"}), 0),
        (Selection(key_id="key_1", limit=5, metadata={"nul\0": "\0"}), 1),
        (Selection(key_id="key_1", limit=5, metadata={"nul\0": "\ufffd"}), 0),
    ],
)
async def test_a_page_holds_what_was_selected(filled: Store, wanted: Selection, found: int) -> None:
    assert len(await filled.completions.page(wanted)) == found


@pytest.mark.parametrize("metadata", [None, {}, {"topic": "birds"}])
async def test_metadata_is_replaced_whole(filled: Store, metadata: dict[str, str] | None) -> None:
    row = await filled.completions.set_metadata("key_1", "chatcmpl-1", metadata)
    assert row == await filled.completions.get("key_1", "chatcmpl-1")
    assert row is not None
    assert row.metadata == metadata
    assert await filled.completions.page(Selection(key_id="key_1", limit=1, metadata={"topic": "turtles"})) == []
    for name, value in (metadata or {}).items():
        assert await filled.completions.page(Selection(key_id="key_1", limit=1, metadata={name: value})) == [row]


async def test_what_is_removed_takes_its_tags_along(filled: Store) -> None:
    assert await filled.completions.remove("key_1", "chatcmpl-1")
    assert await filled.completions.get("key_1", "chatcmpl-1") is None
    assert not await filled.completions.remove("key_1", "chatcmpl-1")
    assert await filled._database.read(lambda c: c.execute(select(completion_tags)).all()) == []
