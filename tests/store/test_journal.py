"""Holds and postings, on both databases: no balance is overdrawn, nothing is posted twice."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from msgspec import structs

from chatport.store import Store
from chatport.store.account import (
    Answer,
    AttemptRow,
    Checkpoint,
    Claim,
    Hold,
    HoldAccount,
    HoldRow,
    Lost,
    NoRoom,
    Placed,
    PostingRow,
    Settlement,
)
from chatport.store.budgets import BudgetRow
from chatport.store.errors import StoreUnavailable
from chatport.store.schema import attempts, entries, holds, postings

TOKENS = BudgetRow(id="bud_1", kind="key", subject="key_1", unit="token", amount=100, period="once", created_at=1)


def row(request_id: str, **more: Any) -> HoldRow:
    account = HoldAccount(key_id="key_1", model="m", target="t", **more)
    return HoldRow(
        request_id=request_id,
        worker_id="worker_1",
        created_ms=1,
        account=account,
        prompt_tokens=10,
        completion_tokens=0,
    )


def claim(budget: str = "bud_1", *, prompt: int = 10, enforced: bool = True) -> Claim:
    return Claim(budget, 0, prompt, 1, 1, "token", enforced)


def hold(request_id: str, *claims: Claim, least: int = 1, most: int = 20, wanted: int = 1000, **more: Any) -> Hold:
    return Hold(row=row(request_id), new=True, claims=claims, least=least, most=most, wanted=wanted, **more)


def end(request_id: str, *taken: Any, **columns: Any) -> Settlement:
    posting = PostingRow(id=request_id, created_ms=1, settled_ms=2, key_id="key_1", model="m", **columns)
    return Settlement(posting=posting, taken=taken)


async def balance(store: Store, budget: str = "bud_1") -> tuple[int, int]:
    [found] = await store.budgets.balances([(budget, 0)])
    return found.posted, found.held


async def rows(store: Store, table: Any) -> list[Any]:
    return await store._database.read(lambda connection: [*connection.execute(table.select())])


async def test_without_a_budget_a_request_is_held_and_posted(store: Store) -> None:
    assert await store.journal.hold(hold("req_1")) == Placed(20, (), 1000)
    assert (await store.journal.held("req_1")) == row("req_1")
    assert await store.journal.settle(end("req_1", prompt_tokens=3, charge_nano=7))
    [posting] = await rows(store, postings)
    assert (posting.id, posting.prompt_tokens, posting.charge_nano, posting.kind) == ("req_1", 3, 7, "request")
    assert await rows(store, holds) == []


async def test_whoever_takes_the_hold_posts_and_nobody_else(store: Store) -> None:
    await store.journal.hold(hold("req_1"))
    settled = await asyncio.gather(*(store.journal.settle(end("req_1")) for _ in range(3)))
    assert sorted(settled) == [False, False, True]
    assert not await store.journal.settle(end("req_never_held"))
    assert len(await rows(store, postings)) == 1


async def test_a_hold_takes_what_is_there_and_no_more(store: Store) -> None:
    await store.budgets.add(TOKENS, "test")
    first = await store.journal.hold(hold("req_1", claim(), most=60))
    assert isinstance(first, Placed)
    assert (first.output, first.held[0].amount, first.affordable) == (60, 70, 90)
    second = await store.journal.hold(hold("req_2", claim(), most=60))
    assert isinstance(second, Placed)
    assert (second.output, second.held[0].amount) == (20, 30)
    assert await balance(store) == (0, 100)
    assert await store.journal.hold(hold("req_3", claim())) == NoRoom("bud_1", 0, 11, 100, 0, 100)
    assert await balance(store) == (0, 100)


async def test_what_is_refused_for_others_holds_is_not_exhausted(store: Store) -> None:
    await store.budgets.add(TOKENS, "test")
    await store.journal.hold(hold("req_1", claim(), most=90))
    refused = await store.journal.hold(hold("req_2", claim()))
    assert isinstance(refused, NoRoom)
    assert not refused.exhausted
    await store.journal.settle(end("req_1", claim().held(85)))
    refused = await store.journal.hold(hold("req_2", claim()))
    assert isinstance(refused, NoRoom)
    assert refused.exhausted
    assert await balance(store) == (95, 0)


async def test_a_hold_is_extended_in_place(store: Store) -> None:
    await store.budgets.add(TOKENS, "test")
    placed = await store.journal.hold(hold("req_1", claim(), most=20))
    assert isinstance(placed, Placed)
    more = Hold(row=row("req_1", held=placed.held), new=False, claims=(claim(),), least=30, most=200, wanted=1000)
    extended = await store.journal.hold(more)
    assert isinstance(extended, Placed)
    assert (extended.output, await balance(store)) == (90, (0, 100))
    kept = await store.journal.held("req_1")
    assert kept is not None
    assert kept.account.held == extended.held


async def test_an_extension_that_does_not_fit_changes_nothing(store: Store) -> None:
    await store.budgets.add(TOKENS, "test")
    placed = await store.journal.hold(hold("req_1", claim(), most=20))
    await store.journal.hold(hold("req_2", claim(), most=60))
    assert isinstance(placed, Placed)
    more = Hold(row=row("req_1", held=placed.held), new=False, claims=(claim(),), least=21, most=21, wanted=1000)
    assert await store.journal.hold(more) == NoRoom("bud_1", 0, 31, 100, 0, 70)
    assert await balance(store) == (0, 100)


async def test_a_hold_that_another_worker_has_settled_is_lost(store: Store) -> None:
    await store.budgets.add(TOKENS, "test")
    placed = await store.journal.hold(hold("req_1", claim()))
    assert isinstance(placed, Placed)
    await store.journal.settle(end("req_1", claim().held(0)))
    more = Hold(row=row("req_1", held=placed.held), new=False, claims=(claim(),), least=1, most=30, wanted=1000)
    assert await store.journal.hold(more) == Lost()
    assert await balance(store) == (10, 0)


async def test_all_budgets_must_have_room_or_none_is_touched(store: Store) -> None:
    await store.budgets.add(TOKENS, "test")
    small = BudgetRow(id="bud_0", kind="model", subject="m", unit="token", amount=5, period="once", created_at=1)
    await store.budgets.add(small, "test")
    refused = await store.journal.hold(hold("req_1", claim(), claim("bud_0")))
    assert isinstance(refused, NoRoom)
    assert (refused.budget_id, refused.exhausted) == ("bud_0", True)
    assert (await balance(store), await balance(store, "bud_0")) == ((0, 0), (0, 0))
    assert await rows(store, holds) == []


async def test_a_budget_that_only_reports_refuses_nothing_and_counts_all(store: Store) -> None:
    await store.budgets.add(TOKENS, "test")
    placed = await store.journal.hold(hold("req_1", claim(prompt=500, enforced=False)))
    assert isinstance(placed, Placed)
    await store.journal.settle(end("req_1", claim(prompt=500, enforced=False).held(7)))
    assert await balance(store) == (507, 0)


async def test_many_at_once_never_overdraw(store: Store) -> None:
    await store.budgets.add(TOKENS, "test")
    answers = await asyncio.gather(*(store.journal.hold(hold(f"req_{n}", claim(), most=2)) for n in range(50)))
    placed = [answer for answer in answers if isinstance(answer, Placed)]
    assert sum(answer.held[0].amount for answer in placed) == (await balance(store))[1]
    assert len(placed) == 8
    assert (await balance(store))[1] <= 100
    names = [f"req_{n}" for n, answer in enumerate(answers) if isinstance(answer, Placed)]
    await asyncio.gather(*(store.journal.settle(end(name, claim().held(1))) for name in names))
    assert await balance(store) == (8 * 11, 0)
    assert sum(entry.amount for entry in await rows(store, entries)) == 8 * 11


async def test_what_is_held_is_what_the_database_says(store: Store) -> None:
    """An extension whose answer was lost is released all the same."""
    await store.budgets.add(TOKENS, "test")
    placed = await store.journal.hold(hold("req_1", claim(), most=20))
    assert isinstance(placed, Placed)
    more = Hold(row=row("req_1", held=placed.held), new=False, claims=(claim(),), least=1, most=80, wanted=1000)
    await store.journal.hold(more)
    await store.journal.settle(end("req_1", claim().held(15)))
    assert await balance(store) == (25, 0)


async def test_what_is_held_is_released_even_if_the_posting_knows_nothing_of_it(store: Store) -> None:
    """One that holds nothing, one that holds something, one that says so in its key's words only, and one that another
    worker has settled, in one transaction."""
    await store.budgets.add(TOKENS, "test")
    await store.journal.hold(hold("req_1"))
    await store.journal.hold(hold("req_2", claim()))
    await store.journal.hold(Hold(row=row("req_3", owner='"held":'), new=True, claims=(), least=1, most=1, wanted=1))
    assert await balance(store) == (0, 30)
    posted = await asyncio.gather(*(store.journal.settle(end(f"req_{number}")) for number in (1, 2, 3, 4, 1)))
    assert posted == [True, True, True, False, False]
    assert await balance(store) == (0, 0)
    assert await rows(store, holds) == []
    assert sorted(posting.id for posting in await rows(store, postings)) == ["req_1", "req_2", "req_3"]


async def test_a_checkpoint_moves_the_hold_on(store: Store) -> None:
    await store.journal.hold(hold("req_1"))
    await store.journal.checkpoint(Checkpoint(request_id="req_1", prompt_tokens=10, completion_tokens=64))
    kept = await store.journal.held("req_1")
    assert kept is not None
    assert kept.completion_tokens == 64
    await store.journal.checkpoint(Checkpoint(request_id="req_gone", prompt_tokens=10, completion_tokens=64))


async def test_orphans_are_what_workers_hold_that_were_not_seen(store: Store) -> None:
    await store.journal.beat("worker_1", 1000)
    await store.journal.hold(hold("req_1"))
    assert await store.journal.orphans(1000) == []
    [orphan] = await store.journal.orphans(1001)
    assert orphan.request_id == "req_1"
    await store.journal.forget_workers(5000)
    assert len(await store.journal.orphans(0)) == 0  # a worker that holds something is not forgotten
    await store.journal.settle(end("req_1"))
    await store.journal.leave("worker_1")
    await store.journal.hold(hold("req_2"))
    assert [orphan.request_id for orphan in await store.journal.orphans(0)] == ["req_2"]


async def test_a_grant_raises_the_limit_and_stays_in_the_books(store: Store) -> None:
    await store.budgets.add(TOKENS, "test")
    grant = PostingRow(id="grant_1", kind="grant", created_ms=1, settled_ms=1, note="goodwill")
    await store.journal.settle(Settlement(posting=grant, taken=(claim(prompt=50).held(0),)))
    [found] = await store.budgets.balances([("bud_1", 0)])
    assert (found.granted, found.posted) == (50, 0)
    placed = await store.journal.hold(hold("req_1", claim(), most=1000))
    assert isinstance(placed, Placed)
    assert placed.output == 140


async def test_failed_attempts_and_further_work_are_written_with_the_posting(store: Store) -> None:
    await store.journal.hold(hold("req_1"))
    failed = AttemptRow(
        request_id="req_1", number=1, target="a", model="m", began_ms=1, ended_ms=2, outcome="503 service_unavailable"
    )
    done: list[str] = []
    settlement = end("req_1", end_user="nul\0")
    await store.journal.settle(
        Settlement(posting=settlement.posting, attempts=(failed,), also=(lambda _: done.append("also"),))
    )
    [attempt] = await rows(store, attempts)
    assert (attempt.request_id, attempt.outcome, done) == ("req_1", "503 service_unavailable", ["also"])
    [posting] = await rows(store, postings)
    assert posting.end_user == "nul\ufffd"


async def test_a_write_that_can_t_be_made_takes_no_other_with_it(store: Store) -> None:
    def fail(_: object) -> None:
        raise ZeroDivisionError

    await asyncio.gather(*[store.journal.hold(hold(f"req_{number}")) for number in range(3)])
    faulty = Settlement(posting=end("req_1").posting, also=(fail,))
    writes = [store.journal.settle(one) for one in (end("req_0"), faulty, end("req_2"))]
    done = await asyncio.gather(*writes, return_exceptions=True)
    assert [one if isinstance(one, bool) else type(one) for one in done] == [True, ZeroDivisionError, True]
    assert [posting.id for posting in await rows(store, postings)] == ["req_0", "req_2"]
    assert [held.request_id for held in await rows(store, holds)] == ["req_1"]


async def test_a_budget_that_has_ended_refuses_nobody(store: Store) -> None:
    await store.budgets.add(TOKENS, "test")
    await store.budgets.change("bud_1", "test", ended_at=5)
    placed = await store.journal.hold(hold("req_1", claim(), most=1000))
    assert isinstance(placed, Placed)
    assert placed.output == 1000


@pytest.mark.parametrize(("available", "room"), [(9, -1), (10, 0), (11, 1), (500, 20)])
def test_the_room_of_a_claim(available: int, room: int) -> None:
    assert claim().room(available, 20) == room


def test_amounts_are_rounded_up_once() -> None:
    money = Claim("b", 0, 1, 333, 1000, "nano")
    assert [money.amount(n) for n in (0, 1, 3, 6)] == [1, 1, 1, 2]
    assert money.room(1, 100) == 3


def test_what_costs_nothing_fits_under_a_budget_that_is_overdrawn() -> None:
    free = Claim("bud_1", 0, 0, 0, 1, "nano")
    assert free.room(-5, 100) == 100
    assert claim().room(-5, 100) < 0


async def test_who_is_cancelled_hears_of_it_when_the_write_is_done(store: Store) -> None:
    async def ask() -> Answer:
        return await store.journal.hold(hold("req_1"))

    asking = asyncio.create_task(ask())
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert await store.journal.held("req_1") is not None


async def test_nobody_waits_for_a_program_that_ends(store: Store) -> None:
    """Its tasks are cancelled, the one that writes among them, maybe before it has begun."""
    writing = store.journal.settle(structs.replace(end("req_1"), also=(lambda _: time.sleep(0.05),)))
    while store.journal._writing is None:
        await asyncio.sleep(0)
    store.journal._writing.cancel()
    with pytest.raises(StoreUnavailable, match="the program ends"):
        await writing
    assert await store.journal.settle(end("req_1")) is False  # and whoever comes later is served again
