"""Idempotency keys: one reply, however often it is asked for."""

from __future__ import annotations

import asyncio

import pytest

from chatport.policy import replays as module
from chatport.policy.keys import Keys
from chatport.policy.replays import KEPT_FOR, Claim, Replay, Replays
from chatport.store import Store, open_store
from chatport.store.errors import StoreUnavailable
from chatport.wire.errors import InvalidRequest
from support.accounts import written

NOW = 1_800_000_000.0
REPLY = Replay("application/json", b'{"a":"\x00\xff"}')


@pytest.fixture
async def caller_id(store: Store) -> str:
    return (await Keys(store.keys).create(name="n", now=NOW)).id


@pytest.fixture
def replays(store: Store) -> Replays:
    return Replays(store.replays)


async def keep(claim: Claim, store: Store, reply: Replay = REPLY) -> None:
    """As a settlement does: written once, whoever leaves meanwhile."""
    writing = asyncio.ensure_future(written(store, claim.keep(reply)))
    writing.add_done_callback(lambda _: claim.posted())
    await asyncio.shield(writing)


class Client:
    """Sends one request: works when it must, for as long as it is told to, and notes what it got."""

    def __init__(self, store: Store, replays: Replays, caller_id: str, *, name: str = "k", body: bytes = b"{}") -> None:
        self.store = store
        self.replays = replays
        self.request = (caller_id, name, body)
        self.working = asyncio.Event()
        self.may_end = asyncio.Event()
        self.fails = False
        self.got: Replay | None = None
        self.task = asyncio.create_task(self.send())

    async def send(self) -> None:
        async with self.replays.claim(*self.request, NOW) as claim:
            if claim.replay is not None:
                self.got = claim.replay
                return
            self.working.set()
            await self.may_end.wait()
            if self.fails:
                raise LookupError("the backend failed")
            await keep(claim, self.store)


async def begun(*clients: Client) -> None:
    """Waits until the first works and the others, having had every chance, do not."""
    await clients[0].working.wait()
    for _ in range(10):
        await asyncio.sleep(0)
    assert not any(client.working.is_set() or client.task.done() for client in clients[1:])


async def test_a_repeat_gets_the_reply_byte_for_byte(store: Store, replays: Replays, caller_id: str) -> None:
    async with replays.claim(caller_id, "k", b"{}", NOW) as claim:
        assert claim.replay is None
        await keep(claim, store)
    async with replays.claim(caller_id, "k", b"{}", NOW) as claim:
        assert claim.replay == REPLY


async def test_a_repeat_gets_it_after_a_restart_too(
    store_url: str, store: Store, replays: Replays, caller_id: str
) -> None:
    async with replays.claim(caller_id, "k", b"{}", NOW) as claim:
        await keep(claim, store)
    async with open_store(store_url) as later, Replays(later.replays).claim(caller_id, "k", b"{}", NOW) as claim:
        assert claim.replay == REPLY


async def test_another_body_is_a_conflict(store: Store, replays: Replays, caller_id: str) -> None:
    async with replays.claim(caller_id, "k", b"{}", NOW) as claim:
        await keep(claim, store)
    with pytest.raises(InvalidRequest, match="Idempotency-Key") as caught:
        async with replays.claim(caller_id, "k", b"{ }", NOW):
            pass
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, "idempotency_conflict", None)


async def test_another_body_is_a_conflict_while_the_first_runs(store: Store, replays: Replays, caller_id: str) -> None:
    first = Client(store, replays, caller_id)
    await begun(first)
    with pytest.raises(InvalidRequest, match="Idempotency-Key"):
        await Client(store, replays, caller_id, body=b"[]").task
    first.may_end.set()
    await first.task


async def test_a_conflict_does_not_disturb_the_right_repeat(store: Store, replays: Replays, caller_id: str) -> None:
    async with replays.claim(caller_id, "k", b"{}", NOW) as claim:
        await keep(claim, store)
    wrong, right = Client(store, replays, caller_id, body=b"[]"), Client(store, replays, caller_id)
    outcomes = await asyncio.gather(wrong.task, right.task, return_exceptions=True)
    assert isinstance(outcomes[0], InvalidRequest)
    assert right.got == REPLY


async def test_names_are_each_callers_own(store: Store, replays: Replays, caller_id: str) -> None:
    other_id = (await Keys(store.keys).create(name="other", now=NOW)).id
    async with replays.claim(caller_id, "k", b"{}", NOW) as claim:
        await keep(claim, store)
    for caller, name in ((other_id, "k"), (caller_id, "K")):
        async with replays.claim(caller, name, b"{}", NOW) as claim:
            assert claim.replay is None


async def test_a_repeat_joins_the_first_while_it_runs(store: Store, replays: Replays, caller_id: str) -> None:
    first, second, third = (Client(store, replays, caller_id) for _ in range(3))
    await begun(first, second, third)
    first.may_end.set()
    await asyncio.gather(first.task, second.task, third.task)
    assert (first.got, second.got, third.got) == (None, REPLY, REPLY)


async def test_who_waits_is_answered_while_the_first_still_delivers(
    store: Store, replays: Replays, caller_id: str
) -> None:
    async with replays.claim(caller_id, "k", b"{}", NOW) as claim:
        second = Client(store, replays, caller_id)
        await keep(claim, store)
        await second.task
        assert second.got == REPLY


async def test_when_the_first_fails_the_next_takes_over(store: Store, replays: Replays, caller_id: str) -> None:
    first, second, third = (Client(store, replays, caller_id) for _ in range(3))
    await begun(first, second, third)
    first.fails = True
    first.may_end.set()
    with pytest.raises(LookupError):
        await first.task
    await begun(second, third)
    second.may_end.set()
    await asyncio.gather(second.task, third.task)
    assert (second.got, third.got) == (None, REPLY)


async def test_when_the_first_is_cancelled_the_next_takes_over(store: Store, replays: Replays, caller_id: str) -> None:
    first, second, third = (Client(store, replays, caller_id) for _ in range(3))
    await begun(first, second, third)
    second.task.cancel()  # one that waits may leave
    first.task.cancel()
    await begun(third)
    third.may_end.set()
    await third.task
    assert (second.task.cancelled(), third.got) == (True, None)


async def test_who_leaves_while_the_reply_is_kept_leaves_it_to_who_waits(
    store: Store, replays: Replays, caller_id: str
) -> None:
    first, second = Client(store, replays, caller_id), Client(store, replays, caller_id)
    await begun(first, second)
    first.may_end.set()
    await asyncio.sleep(0)  # now it is at the store
    first.task.cancel()
    await second.task
    assert second.got == REPLY


async def test_different_names_do_not_wait_for_each_other(store: Store, replays: Replays, caller_id: str) -> None:
    first, second = Client(store, replays, caller_id), Client(store, replays, caller_id, name="other")
    await first.working.wait()
    await second.working.wait()
    first.may_end.set()
    second.may_end.set()
    await asyncio.gather(first.task, second.task)


async def test_a_failure_is_not_kept(store: Store, replays: Replays, caller_id: str) -> None:
    for _ in range(2):
        async with replays.claim(caller_id, "k", b"{}", NOW) as claim:
            assert claim.replay is None


async def test_a_repeat_waits_until_the_reply_is_written(store: Store, replays: Replays, caller_id: str) -> None:
    async with replays.claim(caller_id, "k", b"{}", NOW) as claim:
        work = claim.keep(REPLY)
    second = Client(store, replays, caller_id)
    await asyncio.sleep(0.05)
    assert not second.working.is_set()
    await written(store, work)
    claim.posted()
    await second.task
    assert second.got == REPLY
    assert replays._turns == {}


async def test_a_repeat_is_told_that_the_reply_can_t_be_written(
    replays: Replays, caller_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store was down: the reply is made and paid for, and nobody makes it again before it is there."""
    monkeypatch.setattr(module, "POSTING_WAIT", 0.05)
    async with replays.claim(caller_id, "k", b"{}", NOW) as claim:
        claim.keep(REPLY)

    async def repeat() -> None:
        async with replays.claim(caller_id, "k", b"{}", NOW):
            pass

    began = asyncio.get_running_loop().time()
    faults = await asyncio.gather(*(repeat() for _ in range(20)), return_exceptions=True)
    assert all(isinstance(fault, StoreUnavailable) for fault in faults)
    assert asyncio.get_running_loop().time() - began < 10 * 0.05, "they wait together, not one after the other"
    claim.posted()
    async with replays.claim(caller_id, "k", b"{}", NOW) as claim:
        assert claim.replay is None


async def test_a_reply_is_kept_for_a_day(store: Store, replays: Replays, caller_id: str) -> None:
    async with replays.claim(caller_id, "k", b"{}", NOW) as claim:
        await keep(claim, store)
    async with replays.claim(caller_id, "k", b"{}", NOW + KEPT_FOR - 1) as claim:
        assert claim.replay == REPLY
    assert await replays.prune(NOW + KEPT_FOR - 1) == 0
    async with replays.claim(caller_id, "k", b"[]", NOW + KEPT_FOR) as claim:
        assert claim.replay is None
        await keep(claim, store, Replay("text/plain", b"new"))
    assert await replays.prune(NOW + KEPT_FOR) == 0  # the new one took its place
    assert await replays.prune(NOW + 2 * KEPT_FOR) == 1


@pytest.mark.parametrize("name", ["", "x" * 256])
async def test_a_name_of_the_wrong_length_is_refused(store: Store, replays: Replays, caller_id: str, name: str) -> None:
    with pytest.raises(InvalidRequest, match="1 to 255 characters") as caught:
        async with replays.claim(caller_id, name, b"{}", NOW):
            pass
    assert caught.value.status == 400


@pytest.mark.parametrize("name", ["x" * 255, "nul\0", "\udc80", "键"])
async def test_any_characters_may_be_in_a_name(store: Store, replays: Replays, caller_id: str, name: str) -> None:
    async with replays.claim(caller_id, name, b"{}", NOW) as claim:
        await keep(claim, store)
    async with replays.claim(caller_id, name, b"{}", NOW) as claim:
        assert claim.replay == REPLY


async def test_a_store_that_is_down_says_so_and_leaves_nobody_waiting(store: Store, replays: Replays) -> None:
    await store.close()
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            async with asyncio.timeout(5), replays.claim("key_1", "k", b"{}", NOW):
                pass


async def test_nothing_is_left_in_memory(store: Store, replays: Replays, caller_id: str) -> None:
    clients = [Client(store, replays, caller_id) for _ in range(5)]
    for client in clients:
        client.may_end.set()
    await asyncio.gather(*(client.task for client in clients))
    assert replays._turns == {}
