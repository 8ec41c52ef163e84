"""Keys as rows."""

from __future__ import annotations

import asyncio

from msgspec import structs

from chatport.store import Store, open_store
from chatport.store.keys import KeyRow

FULL = KeyRow(
    id="key_1",
    name="Büro 办公室",
    digest=b"\x00\xff" * 16,
    prefix="sk-cp-abcd",
    admin=True,
    models=frozenset({"gpt-4", "模型"}),
    created_at=1_700_000_000,
    expires_at=1_800_000_000,
    revoked_at=1_750_000_000,
)
BARE = structs.replace(
    FULL, id="key_2", digest=b"\x01" * 32, models=None, expires_at=None, revoked_at=None, created_at=1
)


async def test_a_row_comes_back_as_it_went_in_oldest_first(store: Store) -> None:
    assert await store.keys.add(FULL) == FULL
    assert await store.keys.add(BARE) == BARE
    assert await store.keys.all() == [BARE, FULL]


async def test_no_models_is_not_all_models(store: Store) -> None:
    none_allowed = structs.replace(BARE, models=frozenset())
    assert await store.keys.add(none_allowed) == none_allowed


async def test_a_known_digest_keeps_its_row(store: Store) -> None:
    await store.keys.add(BARE)
    before = (await store.revisions.current())["keys"]
    assert await store.keys.add(structs.replace(BARE, id="key_3", name="again")) == BARE
    assert await store.keys.all() == [BARE]
    assert (await store.revisions.current())["keys"] == before


async def test_two_programs_that_add_one_digest_agree_on_its_row(store_url: str, store: Store) -> None:
    async with open_store(store_url) as other:
        ours, theirs = await asyncio.gather(
            store.keys.add(structs.replace(BARE, id="key_ours")), other.keys.add(structs.replace(BARE, id="key_theirs"))
        )
    assert ours == theirs
    assert await store.keys.all() == [ours]


async def test_revoking_marks_once(store: Store) -> None:
    await store.keys.add(BARE)
    await store.keys.revoke("key_2", 100)
    await store.keys.revoke("key_2", 200)
    assert [row.revoked_at for row in await store.keys.all()] == [100]


async def test_every_change_is_counted(store: Store) -> None:
    revisions = [(await store.revisions.current())["keys"]]
    await store.keys.add(BARE)
    revisions.append((await store.revisions.current())["keys"])
    await store.keys.revoke("key_2", 100)
    revisions.append((await store.revisions.current())["keys"])
    assert revisions == sorted(set(revisions))
