"""The proof finds each kind of forged difference, and nothing where all is right."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest
from sqlalchemy import text

from chatport.store import Store
from chatport.store.account import Held, PostingRow, Settlement
from chatport.store.proof import Difference
from support.postings import BUDGET, begin, post


@pytest.fixture
async def account(store: Store) -> Store:
    """A grant, a correction, two requests and one that runs, under one budget."""
    await store.budgets.add(BUDGET, "test")
    for kind, amount in (("grant", 1000), ("correction", -20)):
        posting = PostingRow(id=f"{kind}_1", kind=kind, created_ms=1, settled_ms=1)  # type: ignore[arg-type]
        await store.journal.settle(Settlement(posting=posting, taken=(Held("bud_1", 0, amount, "nano"),)))
    await post(store, "a", budget="bud_1")
    await post(store, "b", budget="bud_1")
    await begin(store, "c", budget="bud_1")
    return store


async def forge(store: Store, *statements: str) -> None:
    def work(connection: Any) -> None:
        for statement in statements:
            connection.execute(text(statement)).close()

    await store._database.write(work)


async def differences(store: Store) -> list[Difference]:
    return (await store.prover.verify()).differences


async def test_a_right_account_has_no_differences(account: Store) -> None:
    proof = await account.prover.verify()
    assert (proof.differences, proof.over_hold, proof.over_limit) == ([], [], [])
    assert (proof.requests, proof.balances, proof.open_holds) == (2, 1, 1)


async def test_ranges_leave_nothing_out(account: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chatport.store.proof.RANGE", 1)
    assert await differences(account) == []
    await forge(account, "UPDATE entries SET amount = 71 WHERE amount = 70")
    assert len(await differences(account)) == 3


PLACE: dict[str, Any] = {"budget_id": "bud_1", "period": 0}
B = "(SELECT sequence FROM postings WHERE id = 'b')"


@pytest.mark.parametrize(
    ("forgery", "found"),
    [
        ("UPDATE balances SET posted = posted - 1", Difference(what="posted", kept=119, computed=120, **PLACE)),
        ("UPDATE balances SET granted = 999", Difference(what="granted", kept=999, computed=1000, **PLACE)),
        ("UPDATE balances SET held = 0", Difference(what="held", kept=0, computed=100, **PLACE)),
        ("DELETE FROM holds", Difference(what="held", kept=100, computed=0, **PLACE)),
        ("DELETE FROM balances", Difference(what="posted", kept=0, computed=120, **PLACE)),
        (f"DELETE FROM entries WHERE sequence = {B}", Difference(what="posted", kept=120, computed=50, **PLACE)),
        (
            f"UPDATE entries SET amount = 1 WHERE sequence = {B}",
            Difference(what="entry_amount", kept=1, computed=70, request_id="b", **PLACE),
        ),
        (
            "UPDATE postings SET charge_nano = 71 WHERE id = 'b'",
            Difference(what="entry_amount", kept=70, computed=71, request_id="b", **PLACE),
        ),
    ],
)
async def test_what_was_changed_by_hand_is_found(account: Store, forgery: str, found: Difference) -> None:
    await forge(account, forgery)
    assert found in await differences(account)


async def test_a_request_posted_twice_is_found(account: Store) -> None:
    columns = ", ".join(name for name in PostingRow.__struct_fields__ if name != "id")
    copy = f"INSERT INTO postings (id, {columns}) SELECT %s, {columns} FROM postings WHERE id = 'b'"
    entry = "INSERT INTO entries SELECT 'bud_1', 0, max(sequence), 70 FROM postings"
    await forge(account, copy % "'c'", entry)
    found = await differences(account)
    assert Difference(what="posted_and_held", kept=2, computed=1, request_id="c") in found
    assert Difference(what="posted", kept=120, computed=190, **PLACE) in found


async def test_one_id_in_two_postings_is_found(account: Store, store_url: str) -> None:
    if store_url.startswith("sqlite"):
        pytest.skip("SQLite can't be brought to hold it: the constraint is part of the table")
    columns = ", ".join(name for name in PostingRow.__struct_fields__)
    await forge(
        account,
        "ALTER TABLE postings DROP CONSTRAINT postings_id_unique",
        f"INSERT INTO postings ({columns}) SELECT {columns} FROM postings WHERE id = 'b'",
    )
    try:
        assert await differences(account) == [Difference(what="posted_twice", kept=2, computed=1, request_id="b")]
    finally:
        await forge(
            account,
            "DELETE FROM postings WHERE sequence = (SELECT max(sequence) FROM postings)",
            "ALTER TABLE postings ADD CONSTRAINT postings_id_unique UNIQUE (id)",
        )


async def test_an_entry_without_its_posting_is_found(account: Store, store_url: str) -> None:
    if store_url.startswith("sqlite"):
        with sqlite3.connect(store_url.removeprefix("sqlite:///")) as raw:
            raw.execute(f"UPDATE entries SET sequence = 999 WHERE sequence = {B}")
        raw.close()
    else:
        await forge(
            account,
            "ALTER TABLE entries DROP CONSTRAINT entries_sequence_fkey",
            f"UPDATE entries SET sequence = 999 WHERE sequence = {B}",
        )
    try:
        found = await differences(account)
        assert Difference(what="entry_without_posting", kept=1, computed=0, **PLACE) in found
        assert Difference(what="posted", kept=120, computed=50, **PLACE) in found
    finally:
        if not store_url.startswith("sqlite"):
            await forge(
                account,
                "DELETE FROM entries WHERE sequence = 999",
                "ALTER TABLE entries ADD CONSTRAINT entries_sequence_fkey "
                "FOREIGN KEY (sequence) REFERENCES postings (sequence)",
            )


async def test_what_used_more_than_it_was_bounded_to_is_listed(account: Store) -> None:
    await post(account, "d", budget="bud_1", charge_nano=2_000_000, over_hold=True)
    proof = await account.prover.verify()
    assert proof.differences == []
    assert [each.request_id for each in proof.over_hold] == ["d"]
    [over] = proof.over_limit
    assert (over.budget_id, over.limit, over.posted, over.held) == ("bud_1", 1_001_000, 2_000_120, 100)
