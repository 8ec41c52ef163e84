"""How budgets stand in the period that runs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from chatport.policy.standing import scope_of, standing, standings
from chatport.store.account import Held, PostingRow, Settlement
from chatport.store.budgets import BalanceRow
from support.accounts import budget
from support.memory import memory_store

NOW = datetime(2026, 11, 25, 17, 0, tzinfo=UTC).timestamp()


def stands(balance: dict[str, int], **fields: Any) -> Any:
    row = budget(**fields)
    return standing(row, BalanceRow(budget_id=row.id, period=0, **balance), NOW)


def test_what_is_left_is_neither_posted_nor_held() -> None:
    found = stands({"posted": 300, "held": 200, "granted": 50}, amount=1000)
    assert (found.limit, found.posted, found.held, found.granted, found.remaining) == (1050, 300, 200, 50, 550)


def test_what_is_left_is_not_below_nothing() -> None:
    assert stands({"posted": 1200}, amount=1000).remaining == 0


def test_a_budget_that_is_once_is_not_renewed() -> None:
    found = stands({})
    assert (found.began_at, found.renews_at) == (None, None)


def test_a_month_is_that_of_the_zone() -> None:
    found = stands({}, period="month", zone="Asia/Shanghai")
    began, renews = (datetime.fromtimestamp(at, UTC) for at in (found.began_at, found.renews_at))
    assert began == datetime(2026, 10, 31, 16, 0, tzinfo=UTC)
    assert renews == datetime(2026, 11, 30, 16, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("fields", "scope"),
    [
        ({}, "key:key_1"),
        ({"kind": "owner", "subject": "alice"}, "owner:alice"),
        ({"kind": "user", "end_user": "ann"}, "user:key_1/ann"),
    ],
)
def test_scopes_are_those_of_the_commands(fields: dict[str, Any], scope: str) -> None:
    assert scope_of(budget(**fields)) == scope


async def test_each_budget_stands_with_the_balance_of_its_period() -> None:
    store, _ = memory_store()
    used, unused = budget(), budget()
    for row in (used, unused):
        await store.budgets.add(row, "test")
    posting = PostingRow(id="c", kind="correction", created_ms=1, settled_ms=1)
    await store.journal.settle(Settlement(posting=posting, taken=(Held(used.id, 0, 7, "token"),)))
    found = await standings(store.budgets, [unused, used], NOW)
    assert [(each.id, each.posted) for each in found] == [(unused.id, 0), (used.id, 7)]
