"""Old records go; balances, sums and the proof stay."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from chatport.store import Store
from chatport.store.account import AttemptRow
from chatport.store.contents import ContentRow, keeping
from chatport.store.schema import attempts, contents, entries, postings
from support.postings import BUDGET, HOUR_MS, post


async def column(store: Store, of: Any) -> list[Any]:
    return await store._database.read(lambda connection: [*connection.execute(select(of)).scalars()])


async def rolled_up(store: Store) -> None:
    await store.usage.roll_up(await store.usage.horizon(), 1000)


def content(request_id: str, expires_at: int = 10**9) -> ContentRow:
    return ContentRow(request_id=request_id, request=b"{}", reply=None, expires_at=expires_at)


async def test_old_requests_go_and_what_they_took_is_carried(store: Store) -> None:
    await store.budgets.add(BUDGET, "test")
    attempt = AttemptRow(request_id="a", number=1, target="t", model="m", began_ms=1, ended_ms=2, outcome="no")
    await post(store, "a", budget="bud_1", attempts=(attempt,), also=(keeping(content("a")),))
    await post(store, "b", budget="bud_1")
    await post(store, "c", budget="bud_1", created_ms=9 * HOUR_MS)
    await rolled_up(store)
    assert not await store.retention.drop(5 * HOUR_MS, 100)
    assert sorted(await column(store, postings.c.id)) == ["c", "carry"]
    assert sorted(await column(store, entries.c.amount)) == [70, 140]
    assert (await column(store, attempts.c.number), await column(store, contents.c.request_id)) == ([], [])
    [balance] = await store.budgets.balances([("bud_1", 0)])
    assert balance.posted == 210
    assert (await store.prover.verify()).differences == []
    assert [each.requests for each in await store.usage.sums("key")] == [3]


async def test_what_is_carried_grows(store: Store) -> None:
    await store.budgets.add(BUDGET, "test")
    for hour in range(6):
        await post(store, budget="bud_1", created_ms=hour * HOUR_MS)
    await rolled_up(store)
    while await store.retention.drop(100 * HOUR_MS, 2):
        pass
    assert await column(store, entries.c.amount) == [6 * 70]
    assert (await store.prover.verify()).differences == []


async def test_nothing_goes_that_is_not_rolled_up(store: Store) -> None:
    await post(store, "a")
    await post(store, "b")
    assert not await store.retention.drop(100 * HOUR_MS, 100)
    assert await column(store, postings.c.id) == ["a", "b"]


async def test_the_newest_posting_stays_so_that_its_number_is_never_given_again(store: Store) -> None:
    await post(store, "a")
    await post(store, "b")
    await rolled_up(store)
    await store.retention.drop(100 * HOUR_MS, 100)
    assert await column(store, postings.c.id) == ["b"]
    await post(store, "c")
    assert [each.requests for each in await store.usage.sums("key")] == [3]


async def test_contents_go_when_they_expire(store: Store) -> None:
    for number, request_id in enumerate("abc"):
        await post(store, request_id, also=(keeping(content(request_id, expires_at=number)),))
    assert await store.contents.prune(1, 1) == 1
    assert await store.contents.prune(1, 10) == 1
    assert await column(store, contents.c.request_id) == ["c"]
