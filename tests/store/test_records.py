"""Records of requests: one with all that belongs to it, and all of them."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text

from chatport.store import Store
from chatport.store.account import AttemptRow, Held, HoldRow, PostingRow, Settlement
from chatport.store.contents import ContentRow, keeping
from chatport.store.keys import KeyRow
from chatport.store.records import Record
from support.postings import BUDGET, HOUR_MS, begin, post, posting_row

KEY = KeyRow(id="key_1", name="laptop", digest=b"d", prefix="sk", admin=False, models=None, created_at=1)


async def found(store: Store, request_id: str) -> Record:
    record = await store.records.one(request_id)
    assert record is not None
    return record


async def test_everything_that_belongs_to_one_request(store: Store) -> None:
    await store.keys.add(KEY)
    await store.budgets.add(BUDGET, "test")
    columns = "id, model, source, rates, effective_at, created_at"
    add_price = text(f"INSERT INTO prices ({columns}) VALUES ('price_1', 'm', 'test', :rates, 5, 6)")
    await store._database.write(lambda connection: connection.execute(add_price, {"rates": b"{}"}).close())
    attempt = AttemptRow(request_id="a", number=1, target="t", model="m", began_ms=1, ended_ms=2, outcome="503 x")
    content = ContentRow(request_id="a", request=b"{}", reply=b"{}", expires_at=9)
    await post(store, "a", budget="bud_1", attempts=(attempt,), also=(keeping(content),), price_id="price_1")
    record = await found(store, "a")
    assert record.posting == posting_row("a", price_id="price_1")
    assert (record.hold, record.attempts, record.content, record.key_name) == (None, [attempt], content, "laptop")
    assert [(each.budget, each.period, each.amount) for each in record.taken] == [(BUDGET, 0, 70)]
    assert record.price is not None
    assert (record.price.id, record.price.source, record.price.effective_at) == ("price_1", "test", 5)


async def test_a_request_that_runs_has_a_hold(store: Store) -> None:
    await begin(store, "a")
    record = await found(store, "a")
    assert record.posting is None
    assert record.hold is not None
    assert record.hold.account.held_nano == 100


@pytest.mark.parametrize("request_id", ["nobody", "no\0body"])
async def test_there_is_no_such_request(store: Store, request_id: str) -> None:
    assert await store.records.one(request_id) is None


async def every(store: Store, since_ms: int = 0) -> list[str]:
    rows = [row async for row in store.records.every(since_ms)]
    return [row.id if isinstance(row, PostingRow) else f"{row.request_id} runs" for row in rows]


async def test_every_request_in_order_a_page_at_a_time(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chatport.store.records.PAGE", 2)
    for request_id in "abcde":
        await post(store, request_id)
    await begin(store, "f")
    assert await every(store) == [*"abcde", "f runs"]


async def test_grants_are_no_requests(store: Store) -> None:
    await store.budgets.add(BUDGET, "test")
    grant = PostingRow(id="grant_1", kind="grant", created_ms=1, settled_ms=1)
    await store.journal.settle(Settlement(posting=grant, taken=(Held("bud_1", 0, 5, "nano"),)))
    assert await every(store) == []


async def test_since_is_when_they_began(store: Store) -> None:
    await post(store, "a")
    await post(store, "b", created_ms=2 * HOUR_MS)
    await begin(store, "c")
    await begin(store, "d", created_ms=3 * HOUR_MS)
    assert await every(store, 2 * HOUR_MS) == ["b", "d runs"]


async def test_a_request_that_is_posted_meanwhile_is_told_of_once(store: Store) -> None:
    await post(store, "a")
    await begin(store, "b")
    rows: list[Any] = []
    async for row in store.records.every():
        if not rows:
            await store.journal.settle(Settlement(posting=posting_row("b")))
            await post(store, "c")
        rows.append(row)
    assert [type(row) for row in rows] == [PostingRow, HoldRow]
    assert rows[1].request_id == "b"
