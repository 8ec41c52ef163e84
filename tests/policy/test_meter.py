"""One request's part of the account: what it holds, what it may still be asked for, how it is posted."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec import structs

from chatport.policy.keeping import Keeping
from chatport.policy.keys import Caller
from chatport.policy.ledger import Ledger, unsent
from chatport.policy.meter import Going, Meter
from chatport.policy.prices import Price, Rates
from chatport.store import Store
from chatport.store.account import Answer, Hold
from chatport.store.errors import StoreUnavailable
from chatport.targets import Bound
from chatport.wire.chat import ChatChunk, ChatRequest, ChunkChoice, Delta
from chatport.wire.errors import (
    AccessDenied,
    ApiError,
    InvalidRequest,
    QuotaExhausted,
    RateLimited,
    Unavailable,
    UpstreamFailed,
)
from chatport.wire.tally import Estimate, usage_of
from support.accounts import budget, ledger_over, meter, rows
from support.memory import MemoryDatabase, memory_store

DOLLAR = 10**9


class World:
    """An account in memory, and a clock that only the test moves."""

    def __init__(self, **settings: Any) -> None:
        self.now = 1_800_000_000.0
        self.store: Store
        self.database: MemoryDatabase
        self.store, self.database = memory_store()
        self.ledger: Ledger = ledger_over(self.store, lambda: self.now, **{"budget_wait": 0.2, **settings})
        self.ledger.prices.known["m"] = (Price(id="price_1", model="m", rates=Rates(prompt=1000, completion=2000)),)

    async def set(self, **fields: Any) -> str:
        row = budget(**fields)
        await self.store.budgets.add(row, "test")
        await self.ledger.budgets.load()
        return row.id

    def meter(self, **fields: Any) -> Meter:
        return meter(self.ledger, **fields)

    async def balance(self, budget_id: str, period: int = 0) -> tuple[int, int]:
        [found] = await self.store.budgets.balances([(budget_id, period)])
        return found.posted, found.held

    async def postings(self) -> list[Any]:
        return await rows(self.store, "postings")


def going(prompt: int = 10, output: int | None = None, **fields: Any) -> Going:
    counted = fields.pop("counted_by", "exact")
    bound = Bound(prompt_tokens=prompt, output_tokens=output, counted_by=counted)
    return Going(**{"model": "m", "target": "t", "bound": bound, "choices": 1, "attempt": 1, **fields})


def said(text: str) -> ChatChunk:
    choice = ChunkChoice(index=0, delta=Delta(content=text))
    return ChatChunk(id="", created=0, model="m", choices=[choice], system_fingerprint="")


async def written() -> None:
    """Lets the journal write what it has been given."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_request_is_posted_with_what_it_used_at_its_price() -> None:
    world = World()
    async with world.meter(end_user="u", owner="o") as one:
        assert await one.cover(going()) is None
        world.now += 0.5
        one.observe(said("Hi"))
        world.now += 0.25
        await one.settle(usage_of(10, 3))
    [posting] = await world.postings()
    assert (posting.prompt_tokens, posting.completion_tokens, posting.price_id) == (10, 3, "price_1")
    assert (posting.cost_nano, posting.charge_nano) == (16, 16)
    assert (posting.held_nano, posting.ending, posting.counted_by) == (10 + 2 * 512, "complete", "tokenizer")
    assert (posting.end_user, posting.owner, posting.target) == ("u", "o", "t")
    assert (posting.first_ms, posting.total_ms, posting.error) == (500, 750, None)


async def test_what_nobody_has_counted_is_posted_as_an_estimate() -> None:
    world = World()
    async with world.meter() as one:
        await one.cover(going(counted_by="bytes"))
        await one.settle(Estimate(prompt_tokens=3, completion_tokens=1, total_tokens=4))
    async with world.meter() as two:
        await two.cover(going(counted_by="bytes"))
        await two.settle(usage_of(3, 1))
    assert [posting.counted_by for posting in await world.postings()] == ["estimate", "upstream"]


async def test_the_owner_s_factor_makes_the_charge_and_leaves_the_cost() -> None:
    world = World()
    bud = await world.set(unit="nano", amount=DOLLAR)
    async with world.meter(factor_ppm=1_500_000) as one:
        await one.cover(going())
        await one.settle(usage_of(10, 3))
    [posting] = await world.postings()
    assert (posting.cost_nano, posting.charge_nano) == (16, 24)
    assert await world.balance(bud) == (24, 0)


async def test_a_missing_limit_holds_one_slice_and_not_the_budget() -> None:
    world = World(slice_tokens=100)
    bud = await world.set(amount=10_000)
    async with world.meter() as one:
        await one.cover(going())
        assert await world.balance(bud) == (0, 110)
        await one.settle(usage_of(10, 0))
    assert await world.balance(bud) == (10, 0)


async def test_a_request_without_a_limit_is_given_one_only_near_the_budget_s_end() -> None:
    world = World(slice_tokens=100)
    await world.set(amount=10_000)
    async with world.meter() as one:
        assert await one.cover(going()) is None
        await one.settle(usage_of(9_900, 0))
    async with world.meter() as two:
        assert await two.cover(going()) == 90
        await two.settle(usage_of(10, 90))


async def test_a_fail_over_waits_for_others_holds_too() -> None:
    world = World(budget_wait=0.05)
    world.ledger.prices.known["dear"] = (Price(id="p2", model="dear", rates=Rates(prompt=10**6, completion=10**6)),)
    await world.set(unit="nano", amount=30_000)
    async with world.meter() as other, world.meter() as one:
        await other.cover(going(model="dear", output=10))
        await one.cover(going(output=10))
        with pytest.raises(RateLimited, match=r"waited 0\.05 s"):
            await one.cover(going(model="dear", output=10, attempt=2))
        await other.settle(usage_of(10, 10))
        await one.settle(usage_of(10, 10))


async def test_the_store_s_outage_makes_nobody_dead() -> None:
    """When it is back nobody has been seen for long: who has been cut off itself waits a lease before it judges."""
    world = World(lease_seconds=0.3, retry_seconds=0.01)
    one = world.meter()
    await one.cover(going())
    heir = ledger_over(world.store, lambda: world.now, lease_seconds=0.3, retry_seconds=0.01)
    await heir.start()
    running = asyncio.create_task(heir.run())
    world.now += 100  # nobody could beat meanwhile
    await asyncio.sleep(0.1)
    assert await world.postings() == []
    await world.store.journal.beat(world.ledger.worker_id, world.ledger.now_ms)
    await asyncio.sleep(0.4)
    assert await world.postings() == []
    world.now += 100  # now it is the other one alone that does not beat
    async with asyncio.timeout(2):
        while not await world.postings():
            await asyncio.sleep(0.02)
    running.cancel()


async def test_a_limit_below_the_slice_is_held_as_it_is() -> None:
    world = World()
    bud = await world.set(amount=10_000)
    async with world.meter() as one:
        assert await one.cover(going(output=30)) is None
        assert await world.balance(bud) == (0, 40)
        await one.settle(usage_of(10, 30))


async def test_what_the_budget_can_t_pay_for_is_not_asked_for() -> None:
    world = World()
    await world.set(amount=60)
    async with world.meter() as one:
        assert await one.cover(going(output=400)) == 50
        await one.settle(usage_of(10, 50))
    [posting] = await world.postings()
    assert (posting.ending, posting.over_hold) == ("complete", False)


async def test_a_slice_is_extended_while_the_answer_runs() -> None:
    world = World(slice_tokens=10)
    bud = await world.set(amount=10_000)
    async with world.meter() as one:
        await one.cover(going())
        assert not one.observe(said("12345"))
        assert one.observe(said("12345"))
        assert await one.extend()
        assert await world.balance(bud) == (0, 30)
        await one.settle(usage_of(10, 4))
    assert await world.balance(bud) == (14, 0)


async def test_an_extension_that_others_leave_no_room_for_cuts_the_answer() -> None:
    world = World(slice_tokens=10)
    bud = await world.set(amount=40)
    async with world.meter() as one, world.meter() as two:
        await one.cover(going())
        await two.cover(going())
        assert one.observe(said("1234567890"))
        assert not await one.extend()
        assert one.cut
        await one.settle(one.used)
        await two.settle(usage_of(10, 10))
    cut, whole = await world.postings()
    assert (cut.ending, cut.counted_by, whole.ending) == ("cut", "estimate", "complete")
    assert cut.over_hold is False
    posted, held = await world.balance(bud)
    assert (posted <= 40, held) == (True, 0)


async def test_what_is_posted_leaves_too_little_is_401_with_what_and_until_when() -> None:
    world = World()
    bud = await world.set(unit="nano", amount=5 * DOLLAR, period="month", zone="Asia/Shanghai")
    world.ledger.prices.known["m"] = (Price(id="p", model="m", rates=Rates(prompt=10**11, completion=10**11)),)
    async with world.meter() as one:
        await one.cover(going(prompt=40, output=9))
        await one.settle(usage_of(40, 9))
    period = world.ledger.budgets.calendar.began(world.ledger.budgets.by_id(bud), world.now)  # type: ignore[arg-type]
    assert await world.balance(bud, period) == (4_900_000_000, 0)
    with pytest.raises(QuotaExhausted) as caught:
        async with world.meter() as one:
            await one.cover(going())
    assert (caught.value.status, caught.value.code) == (401, "insufficient_quota")
    assert caught.value.message.startswith("Quota exhausted: the budget for this month of this API key leaves too")
    assert "(4.90 USD of 5.00 USD used; this request needs up to 1.10 USD)" in caught.value.message
    assert caught.value.message.endswith("It is renewed at 2027-01-31 16:00 UTC.")
    assert len(await world.postings()) == 1


async def test_who_fits_only_without_others_holds_waits_for_them() -> None:
    world = World(budget_wait=5.0)
    await world.set(amount=30)
    one, two = world.meter(), world.meter()
    async with one:
        await one.cover(going(output=15))
        waiting = asyncio.create_task(two.cover(going(output=15)))
        await asyncio.sleep(0.02)
        assert not waiting.done()
        await one.settle(usage_of(5, 0))
    await asyncio.wait_for(waiting, 2)
    async with two:
        await two.settle(usage_of(5, 0))
    assert len(await world.postings()) == 2


async def test_the_line_is_first_come_first_served() -> None:
    world = World(budget_wait=5.0)
    await world.set(amount=30)
    order: list[str] = []

    async def run(name: str, output: int) -> None:
        async with world.meter() as one:
            await one.cover(going(output=output))
            order.append(name)
            await asyncio.sleep(0.01)
            await one.settle(usage_of(1, 0))

    async with world.meter() as first:
        await first.cover(going(output=11))
        tasks = []
        for name, output in (("big", 15), ("small", 1), ("last", 1)):
            tasks.append(asyncio.create_task(run(name, output)))
            await asyncio.sleep(0)
        await asyncio.sleep(0.02)
        # 21 of 30 are held: what only just does not fit is not overtaken by what would.
        assert order == []
        await first.settle(usage_of(1, 0))
    await asyncio.gather(*tasks)
    assert order == ["big", "small", "last"]


async def test_who_waited_in_vain_is_told_429_and_when_to_come_back() -> None:
    world = World(budget_wait=0.05)
    await world.set(amount=30)
    async with world.meter() as one:
        await one.cover(going(output=15))
        with pytest.raises(RateLimited, match="hold what is left of the budget of this API key") as caught:
            async with world.meter() as two:
                await two.cover(going(output=15))
        assert caught.value.retry_after == 1.0
        await one.settle(usage_of(10, 15))


async def test_a_model_without_a_price_is_refused_under_a_budget_of_money() -> None:
    world = World()
    await world.set(unit="nano")
    with pytest.raises(AccessDenied, match="has no price"):
        async with world.meter() as one:
            await one.cover(going(model="unknown"))
    assert await world.postings() == []


async def test_a_budget_in_shadow_mode_refuses_nothing() -> None:
    world = World()
    bud = await world.set(amount=1, mode="report")
    async with world.meter() as one:
        assert not one.must_be_cut(["m"])
        assert await one.cover(going()) is None
        await one.settle(usage_of(10, 3))
    assert await world.balance(bud) == (13, 0)
    assert not (await world.postings())[0].over_hold


@pytest.mark.parametrize(
    ("raised", "spoke", "ending", "used", "error"),
    [
        (asyncio.CancelledError(), False, "client_gone", (10, 0), None),
        (asyncio.CancelledError(), True, "client_gone", (10, 2), None),
        (UpstreamFailed(), False, "upstream_error", (0, 0), "500 api_error"),
        (UpstreamFailed(), True, "upstream_error", (10, 2), "500 api_error"),
        (InvalidRequest("no", code="bad"), False, "refused", (0, 0), "400 bad"),
        (RuntimeError("a bug"), True, "upstream_error", (10, 2), "500 api_error"),
    ],
)
async def test_every_other_ending_is_posted_once(
    raised: BaseException, spoke: bool, ending: str, used: tuple[int, int], error: str | None
) -> None:
    world = World()
    bud = await world.set(amount=10_000)

    async def ask() -> None:
        async with world.meter() as one:
            await one.cover(going())
            if spoke:
                one.observe(said("Hel"))
                one.observe(said("lo"))
            raise raised

    with pytest.raises(type(raised)):
        await ask()
    [posting] = await world.postings()
    assert (posting.ending, posting.prompt_tokens, posting.completion_tokens) == (ending, *used)
    assert (posting.counted_by, posting.error) == ("estimate", error)
    assert await world.balance(bud) == (sum(used), 0)


async def test_a_server_that_stops_is_not_a_client_that_left() -> None:
    world = World()

    async def ask() -> None:
        async with world.meter(stopped=lambda: True) as one:
            await one.cover(going())
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await ask()
    assert (await world.postings())[0].ending == "stopped"


async def test_failed_attempts_are_rows_under_the_posting_and_cost_the_key_nothing() -> None:
    world = World()
    bud = await world.set(amount=10_000)
    async with world.meter() as one:
        await one.cover(going(target="a"))
        world.now += 1
        one.failed(Unavailable("down"))
        await one.cover(going(target="b", attempt=2, prompt=20))
        assert (await world.balance(bud))[1] == 20 + 512
        await one.settle(usage_of(12, 1))
    [posting] = await world.postings()
    [attempt] = await rows(world.store, "attempts")
    assert (posting.target, posting.attempts, posting.prompt_tokens) == ("b", 2, 12)
    assert (attempt.request_id, attempt.number, attempt.target) == (posting.id, 1, "a")
    assert (attempt.ended_ms - attempt.began_ms, attempt.outcome) == (1000, "503 service_unavailable")
    assert await world.balance(bud) == (13, 0)


async def test_a_target_at_another_price_is_held_at_that() -> None:
    world = World()
    world.ledger.prices.known["dear"] = (Price(id="p2", model="dear", rates=Rates(prompt=10**6, completion=10**6)),)
    bud = await world.set(unit="nano", amount=DOLLAR)
    async with world.meter() as one:
        await one.cover(going(output=10))
        assert (await world.balance(bud))[1] == 30
        await one.cover(going(model="dear", output=10, attempt=2))
        assert (await world.balance(bud))[1] == 20_000
        await one.settle(usage_of(10, 10))
    assert await world.balance(bud) == (20_000, 0)
    assert (await world.postings())[0].model == "dear"


async def test_more_than_was_held_is_posted_in_full_and_flagged() -> None:
    world = World()
    bud = await world.set(amount=100)
    async with world.meter() as one:
        await one.cover(going(output=5))
        await one.settle(usage_of(80, 30))
    assert (await world.postings())[0].over_hold
    assert await world.balance(bud) == (110, 0)


async def test_checkpoints_follow_the_answer() -> None:
    world = World(checkpoint_tokens=4)
    async with world.meter(id="req_c") as one:
        await one.cover(going())
        for _ in range(5):
            one.observe(said("word"))
        await written()
        kept = await world.store.journal.held("req_c")
        assert kept is not None
        assert kept.completion_tokens == 4
        one.observe(said("word"))
        world.now += 1.5
        one.observe(said("word"))
        await written()
        kept = await world.store.journal.held("req_c")
        assert kept is not None
        assert kept.completion_tokens == 7
        await one.settle(usage_of(10, 7))


async def test_a_store_that_fails_at_the_hold_lets_nothing_through_and_leaves_no_hold() -> None:
    world = World()
    await world.set(amount=10_000)

    def fail() -> None:
        raise StoreUnavailable("gone")

    world.database.after = fail  # written, and the answer is lost
    with pytest.raises(StoreUnavailable):
        async with world.meter() as one:
            await one.cover(going())
    assert len(await rows(world.store, "holds")) == 1
    world.database.after = lambda: None
    await world.ledger.retry()
    assert await rows(world.store, "holds") == []
    [posting] = await world.postings()
    assert (posting.ending, posting.prompt_tokens, posting.charge_nano) == ("refused", 0, 0)


async def test_a_retry_that_is_cancelled_as_it_begins_loses_nothing() -> None:
    """So a server ends whose store has just come back."""
    world = World()

    def fail() -> None:
        raise StoreUnavailable("gone")

    async with world.meter() as one:
        await one.cover(going())
        world.database.before = fail
        with pytest.raises(StoreUnavailable):
            await one.settle(usage_of(5, 7))
    world.database.before = lambda: None
    retrying = asyncio.create_task(world.ledger.retry())
    asyncio.get_running_loop().call_soon(retrying.cancel)
    await asyncio.wait({retrying})
    await world.ledger.close()
    [posting] = await world.postings()
    assert (posting.ending, posting.completion_tokens) == ("complete", 7)
    assert await rows(world.store, "holds") == []


async def test_who_is_thrown_away_while_he_waits_loses_nothing() -> None:
    """A coroutine that is closed, as a garbage collector does: nobody hears of it, and what was asked of the store is
    known all the same when it has answered."""
    world = World()

    def fail() -> None:
        raise StoreUnavailable("gone")

    one = world.meter()
    covering = one.cover(going())
    covering.send(None)
    covering.close()
    await written()
    await one.cover(going(attempt=2))  # it knows of the hold: this one changes it
    world.database.before = fail
    settling = world.ledger.post(unsent(one._row, 1))  # type: ignore[arg-type]
    settling.send(None)
    settling.close()
    await written()
    world.database.before = lambda: None
    await world.ledger.retry()
    assert len(await world.postings()) == 1
    assert await rows(world.store, "holds") == []


async def test_a_hold_that_arrives_after_its_request_was_refused_goes_too() -> None:
    world = World(lease_seconds=30)
    bud = await world.set(amount=10_000)
    asked: list[Hold] = []
    journal = world.ledger.journal
    place = journal.hold

    def noted(hold: Hold) -> asyncio.Future[Answer]:
        asked.append(hold)
        return place(hold)

    def fail() -> None:
        raise StoreUnavailable("gone")

    journal.hold = noted  # type: ignore[method-assign,assignment]
    world.database.before = fail  # on its way, and nobody waits for it any more
    with pytest.raises(StoreUnavailable):
        async with world.meter() as one:
            await one.cover(going())
    world.database.before = lambda: None
    await world.ledger.retry()
    await place(asked[0])
    assert (await world.balance(bud))[1] > 0
    world.now += 31
    await world.ledger.retry()
    assert await rows(world.store, "holds") == []
    assert await world.balance(bud) == (0, 0)
    assert [posting.ending for posting in await world.postings()] == ["refused"]


async def test_what_can_t_be_posted_fails_alone_and_is_not_tried_for_ever() -> None:
    world = World(lease_seconds=30)
    await world.ledger.start()
    absurd, sound = world.meter(id="req_absurd"), world.meter(id="req_sound")
    await absurd.cover(going())
    await sound.cover(going())
    done = await asyncio.gather(
        absurd.settle(usage_of(1 << 70, 1)), sound.settle(usage_of(10, 3)), return_exceptions=True
    )
    assert [type(one) for one in done] == [OverflowError, type(None)]
    await world.ledger.retry()
    assert [posting.id for posting in await world.postings()] == ["req_sound"]
    world.now += 31
    heir = ledger_over(world.store, lambda: world.now, lease_seconds=30)
    assert await heir.recover() == 1
    assert [(posting.id, posting.ending) for posting in await world.postings()][1:] == [("req_absurd", "crash")]


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_store_that_fails_at_the_settlement_gets_it_later_and_once(when: str) -> None:
    world = World()
    bud = await world.set(amount=10_000)

    def fail() -> None:
        raise StoreUnavailable("gone")

    async with world.meter() as one:
        await one.cover(going())
        setattr(world.database, when, fail)
        with pytest.raises(StoreUnavailable):
            await one.settle(usage_of(10, 3))
    with pytest.raises(StoreUnavailable):
        await world.ledger.retry()
    setattr(world.database, when, lambda: None)
    await world.ledger.retry()
    await world.ledger.retry()
    [posting] = await world.postings()
    assert (posting.ending, posting.completion_tokens) == ("complete", 3)
    assert await world.balance(bud) == (13, 0)


async def test_a_dead_worker_s_requests_are_settled_at_their_last_checkpoint() -> None:
    world = World(lease_seconds=30)
    bud = await world.set(amount=10_000)
    await world.ledger.start()
    one = world.meter(id="req_dead")
    await one.cover(going(prompt=20))
    for _ in range(70):
        one.observe(said("word"))
    await written()
    heir = ledger_over(world.store, lambda: world.now, lease_seconds=30)
    world.now += 29
    await heir.start()
    assert await heir.recover() == 0
    world.now += 2
    assert await heir.recover() == 1
    [posting] = await world.postings()
    assert (posting.id, posting.ending, posting.counted_by) == ("req_dead", "crash", "estimate")
    assert (posting.prompt_tokens, posting.completion_tokens, posting.cost_nano) == (20, 64, 148)
    assert await world.balance(bud) == (84, 0)
    assert await heir.recover() == 0
    # The worker was only slow: its own settlement comes too late, and is not a second one.
    await one.settle(usage_of(20, 70))
    assert len(await world.postings()) == 1


async def test_a_worker_that_beats_is_not_taken_for_dead() -> None:
    world = World(lease_seconds=30)
    await world.ledger.start()
    one = world.meter()
    await one.cover(going())
    heir = ledger_over(world.store, lambda: world.now, lease_seconds=30)
    for _ in range(5):
        world.now += 20
        await world.store.journal.beat(world.ledger.worker_id, world.ledger.now_ms)
        assert await heir.recover() == 0


async def test_a_client_that_leaves_while_the_hold_is_written_pays_nothing() -> None:
    world = World()
    bud = await world.set(amount=10_000)

    async def ask() -> None:
        async with world.meter() as one:
            await one.cover(going())

    task = asyncio.create_task(ask())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await rows(world.store, "holds") == []
    assert await world.balance(bud) == (0, 0)
    for posting in await world.postings():
        assert (posting.charge_nano, posting.ending) == (0, "client_gone")


async def test_a_client_that_leaves_the_line_takes_nothing_with_it() -> None:
    world = World(budget_wait=5)
    bud = await world.set(amount=30)
    async with world.meter() as one:
        await one.cover(going(output=15))
        two = world.meter()
        task = asyncio.create_task(two.cover(going(output=15)))
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait({task})
        await one.settle(usage_of(10, 0))
    await asyncio.sleep(0.3)
    assert await world.balance(bud) == (10, 0)


async def test_end_users_have_budgets_of_their_own() -> None:
    world = World()
    await world.set(kind="user", end_user="ann", amount=5)
    with pytest.raises(ApiError, match="this end user"):
        async with world.meter(end_user="ann") as one:
            await one.cover(going())
    async with world.meter(end_user="bob") as two:
        await two.cover(going())
        await two.settle(usage_of(10, 3))


async def test_what_was_asked_is_kept_without_an_answer_when_the_client_left() -> None:
    world = World()
    caller = Caller("key_1", "one", admin=False, models=None)
    request = ChatRequest(model="m", messages=[])
    kept = Keeping(contents=True).of(caller, request, "req_k", b"{}", world.now)

    async def ask() -> None:
        async with world.meter(id="req_k", kept=kept) as one:
            await one.cover(going())
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await ask()
    [row] = world.database.peek("SELECT request_id, request, reply FROM contents")
    assert row == ("req_k", b"{}", None)


# --- A budget for each end user ---------------------------------------------------------------------------------------


async def test_each_end_user_has_a_budget_for_himself() -> None:
    world = World()
    bud = await world.set(kind="user", end_user="*", amount=100)
    for user in ("alice", "bob", "alice"):
        async with world.meter(end_user=user) as one:
            await one.cover(going(output=20))
            await one.settle(usage_of(10, 20))
    mine = {row.end_user: row for row in await world.store.budgets.each(bud)}
    assert set(mine) == {"alice", "bob"}
    assert await world.balance(mine["alice"].id) == (60, 0)
    assert await world.balance(mine["bob"].id) == (30, 0)
    assert await world.balance(bud) == (0, 0)
    async with world.meter(end_user="alice") as one:
        with pytest.raises(QuotaExhausted, match="the budget of this end user leaves too little"):
            await one.cover(going(prompt=50, output=1))
    async with world.meter(end_user="bob") as one:
        await one.cover(going(prompt=50, output=1))
    assert (await world.store.prover.verify()).differences == []


async def test_who_has_a_budget_of_his_own_is_held_to_that_one_alone() -> None:
    world = World()
    await world.set(kind="user", end_user="*", amount=1)
    own = await world.set(kind="user", end_user="carol", amount=100)
    async with world.meter(end_user="carol") as one:
        await one.cover(going(output=20))
        await one.settle(usage_of(10, 20))
    assert await world.balance(own) == (30, 0)


async def test_who_names_no_end_user_falls_under_no_such_budget() -> None:
    world = World()
    await world.set(kind="user", end_user="*", amount=1)
    async with world.meter() as one:
        await one.cover(going())
        await one.settle(usage_of(10, 20))


@pytest.mark.parametrize("user", ["*", "nul\0", "x" * 64, "键", "."])
async def test_any_name_has_its_budget(user: str) -> None:
    world = World()
    bud = await world.set(kind="user", end_user="*", amount=100)
    async with world.meter(end_user=user) as one:
        await one.cover(going(output=20))
        await one.settle(usage_of(10, 20))
    [row] = await world.store.budgets.each(bud)
    assert await world.balance(row.id) == (30, 0)


async def test_what_changes_in_the_budget_for_each_changes_in_all() -> None:
    world = World()
    bud = await world.set(kind="user", end_user="*", amount=100)
    async with world.meter(end_user="alice") as one:
        await one.cover(going(output=20))
        await one.settle(usage_of(10, 20))
    await world.store.budgets.change(bud, "test", amount=1000)
    await world.ledger.budgets.load()
    async with world.meter(end_user="alice") as one:
        await one.cover(going(output=500))
        await one.settle(usage_of(10, 500))
    await world.store.budgets.change(bud, "test", ended_at=5)
    await world.ledger.budgets.load()
    async with world.meter(end_user="alice") as one:
        await one.cover(going(output=10_000))


async def test_a_part_that_missed_a_change_is_as_the_budget_for_each_all_the_same() -> None:
    """On PostgreSQL a hold that is not committed yet makes a row that the change can't see."""
    world = World()
    bud = await world.set(kind="user", end_user="*", amount=1000)
    async with world.meter(end_user="alice") as one:
        await one.cover(going(output=20))
        await one.settle(usage_of(10, 20))
    await world.store.budgets.change(bud, "test", amount=40, mode="report")
    [row] = await world.store.budgets.each(bud)
    assert (row.amount, row.mode) == (40, "report")
    await world.store.budgets.change(bud, "test", mode="enforce")
    world.database.run(lambda c: c.exec_driver_sql("UPDATE budgets SET amount = 9000, mode = 'report'").close())
    world.database.run(lambda c: c.exec_driver_sql("UPDATE budgets SET amount = 40 WHERE parent IS NULL").close())
    async with world.meter(end_user="alice") as one:
        with pytest.raises(QuotaExhausted, match="30 tokens of 40 tokens used"):
            await one.cover(going(prompt=20, output=1))


async def test_many_of_one_end_user_at_once_never_overdraw_his_budget() -> None:
    world = World(budget_wait=0.0)
    bud = await world.set(kind="user", end_user="*", amount=100)

    async def ask() -> int:
        async with world.meter(end_user="alice") as one:
            try:
                await one.cover(going(output=20))
            except (QuotaExhausted, RateLimited):
                return 0
            await asyncio.sleep(0)
            await one.settle(usage_of(10, 20))
            return 1

    assert sum(await asyncio.gather(*(ask() for _ in range(50)))) == 3
    [row] = await world.store.budgets.each(bud)
    assert await world.balance(row.id) == (90, 0)


# --- What a review found ----------------------------------------------------------------------------------------------


async def test_who_could_have_more_waits_instead_of_taking_a_crumb() -> None:
    world = World(budget_wait=5.0)
    await world.set(amount=2000)
    async with world.meter() as other, world.meter() as one:
        await other.cover(going(output=500))
        await other.settle(usage_of(10, 0))
    async with world.meter() as other:
        await other.cover(going(output=512, prompt=1472))
        one = world.meter()
        asking = asyncio.create_task(one.cover(going(output=100)))
        await asyncio.sleep(0.05)
        assert not asking.done()
        await other.settle(usage_of(10, 0))
    assert await asyncio.wait_for(asking, 2) is None
    async with one:
        await one.settle(usage_of(10, 100))
    assert (await world.postings())[-1].ending == "complete"


async def test_who_has_waited_long_enough_takes_what_there_is() -> None:
    world = World(budget_wait=0.1)
    await world.set(amount=100)
    async with world.meter() as other, world.meter() as one:
        await other.cover(going(output=70))
        assert await one.cover(going(output=80)) is None
        await other.settle(usage_of(10, 0))
        await one.settle(usage_of(10, 5))


async def test_a_long_line_is_served_to_its_end() -> None:
    world = World(budget_wait=3.0)
    await world.set(amount=10_000)
    served = 0

    async def ask() -> None:
        nonlocal served
        async with world.meter() as one:
            await one.cover(going(output=10))
            served += 1
            await one.settle(usage_of(1, 0))

    async with world.meter() as first:
        await first.cover(going(output=1, prompt=9_989))
        waiting = [asyncio.create_task(ask()) for _ in range(1000)]
        await asyncio.sleep(0.5)
        assert served == 0
        await first.settle(usage_of(1, 0))
    await asyncio.gather(*waiting, return_exceptions=True)
    assert served == 1000


async def test_an_upstream_that_ignores_its_limit_is_cut() -> None:
    world = World()
    await world.set(amount=60)
    async with world.meter() as one:
        assert await one.cover(going(output=400)) == 50
        pieces = 0
        while pieces < 400:
            pieces += 1
            if one.observe(said("w ")) and not await one.extend():
                break
        assert one.cut
        await one.settle(one.used)
    assert pieces <= 55
    [posting] = await world.postings()
    assert (posting.ending, posting.over_hold) == ("cut", True)
    assert posting.completion_tokens <= 55


async def test_an_exhausted_budget_is_told_before_one_that_others_hold() -> None:
    world = World(budget_wait=5.0)
    await world.set(id="bud_a", amount=30)
    await world.set(id="bud_b", kind="model", subject="m", amount=5)
    await world.store.budgets.change("bud_b", "test", mode="report")
    await world.ledger.budgets.load()
    async with world.meter() as one:
        await one.cover(going(output=15))
        await world.store.budgets.change("bud_b", "test", mode="enforce")
        await world.ledger.budgets.load()
        with pytest.raises(QuotaExhausted):
            await asyncio.wait_for(world.meter().cover(going(output=15)), 1)
        await one.settle(usage_of(1, 0))


async def test_no_fault_of_a_posting_ends_the_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(lease_seconds=0.12, retry_seconds=0.01)
    beats: list[int] = []

    async def beat(worker_id: str, now_ms: int) -> None:
        beats.append(now_ms)

    async def broken() -> int:
        raise OverflowError("a posting that nobody can write")

    monkeypatch.setattr(world.ledger.journal, "beat", beat)
    monkeypatch.setattr(world.ledger, "retry", broken)
    monkeypatch.setattr(world.ledger, "recover", broken)
    running = asyncio.create_task(world.ledger.run())
    await asyncio.sleep(0.3)
    assert not running.done()
    assert len(beats) > 3
    running.cancel()


async def test_a_posting_that_can_t_be_written_does_not_keep_others_from_it() -> None:
    world = World()
    one, two = world.meter(id="req_bad"), world.meter(id="req_good")
    for each in (one, two):
        await each.cover(going())

    def fail() -> None:
        raise StoreUnavailable("gone")

    world.database.before = fail
    for each in (one, two):
        with pytest.raises(StoreUnavailable):
            await each.settle(usage_of(10, 3))
    world.database.before = lambda: None
    bad, then = world.ledger._unposted[0]
    bad = structs.replace(bad, posting=structs.replace(bad.posting, cost_nano=1 << 70))
    world.ledger._unposted[0] = (bad, then)
    await world.ledger.retry()
    assert [posting.id for posting in await world.postings()] == ["req_good"]


async def test_a_charge_that_no_column_can_hold_is_the_most_that_one_can() -> None:
    world = World()
    dear = Rates(prompt=10**12, completion=10**12)
    world.ledger.prices.known["m"] = (Price(id="p", model="m", rates=dear),)
    async with world.meter(factor_ppm=1_000_000_000) as one:
        await one.cover(going())
        await one.settle(usage_of(2**31, 2**31))
    [posting] = await world.postings()
    assert posting.charge_nano == 2**62


async def test_an_estimate_does_not_overdraw_what_is_held() -> None:
    """One fat piece may be many tokens or few: nobody is charged for more than was held on a guess."""
    world = World(slice_tokens=16)
    bud = await world.set(amount=40)
    async with world.meter() as one:
        await one.cover(going())
        assert one.observe(said("words " * 500))
        assert not await one.extend()
        await one.settle(one.used)
    assert (await world.balance(bud))[0] <= 40
    assert not (await world.postings())[0].over_hold
