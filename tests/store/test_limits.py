"""Limits as rows."""

from __future__ import annotations

from msgspec import Raw, json, structs

from chatport.store import Store
from chatport.store.limits import LimitRow, Rules

FULL = LimitRow(
    kind="owner",
    subject="Büro 办公室",
    rules=Rules(rpm=1, rph=2, rpd=3, tpm=4, tph=5, tpd=6, concurrency=7),
    mode="report",
    changed_at=1_700_000_000,
)
BARE = LimitRow(kind="key", subject="key_1", rules=Rules(tpd=1 << 60), changed_at=1)


async def test_a_row_comes_back_as_it_went_in(store: Store) -> None:
    await store.limits.set(FULL, "me")
    await store.limits.set(BARE, "me")
    assert await store.limits.all() == [BARE, FULL]
    assert [row.scope for row in await store.limits.all()] == ["key:key_1", "owner:Büro 办公室"]


async def test_a_subject_has_one_limit_of_each_kind(store: Store) -> None:
    changed = structs.replace(BARE, rules=Rules(rpm=5), mode="report", changed_at=2)
    of_users = structs.replace(BARE, kind="user")
    for row in (BARE, of_users, changed):
        await store.limits.set(row, "me")
    assert await store.limits.all() == [changed, of_users]


async def test_removing(store: Store) -> None:
    await store.limits.set(BARE, "me")
    assert not await store.limits.remove("user", "key_1", "me")
    assert await store.limits.remove("key", "key_1", "me") == BARE
    assert not await store.limits.remove("key", "key_1", "me")
    assert await store.limits.all() == []


async def test_every_change_is_noted(store: Store) -> None:
    changed = structs.replace(BARE, rules=Rules(rpm=5))
    await store.limits.set(BARE, "me")
    await store.limits.set(changed, "her")
    await store.limits.remove("key", "key_1", "him")
    await store.limits.remove("key", "key_1", "nobody")
    noted = await store.audit.latest(10)
    assert [(row.actor, row.action, row.subject) for row in noted] == [
        ("him", "limit.remove", "key:key_1"),
        ("her", "limit.set", "key:key_1"),
        ("me", "limit.set", "key:key_1"),
    ]
    first, second, third = ([as_limit(row.before), as_limit(row.after)] for row in reversed(noted))
    assert (first, second, third) == ([None, BARE], [BARE, changed], [changed, None])


def as_limit(said: Raw | None) -> LimitRow | None:
    return None if said is None else json.decode(said, type=LimitRow)


async def test_every_change_is_counted(store: Store) -> None:
    revisions = [(await store.revisions.current())["ledger"]]
    await store.limits.set(BARE, "me")
    revisions.append((await store.revisions.current())["ledger"])
    await store.limits.remove("key", "key_1", "me")
    revisions.append((await store.revisions.current())["ledger"])
    assert revisions == sorted(set(revisions))
    await store.limits.remove("key", "key_1", "me")
    assert (await store.revisions.current())["ledger"] == revisions[-1]
