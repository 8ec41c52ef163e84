"""Every point at which a process can die, enumerated.

A request of each kind is stopped before and after each of its writes, and at each turn of the loop; what is found then
keeps the ledger's promises once a new process has recovered. The store is the real one over SQLite in memory, so is the
pipeline; upstream and clock are the test's. Killing means: nothing of the old process runs any more, and the new one
finds what was committed.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing
from typing import Any

import pytest

from chatport.attempts import Attempts
from chatport.backends.base import PouredChunks, Take
from chatport.counters.memory import MemoryCounters
from chatport.delivery import Headers
from chatport.pipeline import Call, Pipeline, Stages
from chatport.policy.catalog import Catalog, Model
from chatport.policy.keeping import Keeping
from chatport.policy.keys import Caller
from chatport.policy.ledger import Ledger
from chatport.policy.limits import Limits
from chatport.policy.prices import Price, Rates
from chatport.policy.replays import Replays
from chatport.policy.routing import Routing
from chatport.policy.strictness import UnknownFields
from chatport.store import Store
from chatport.store.errors import StoreUnavailable
from chatport.store.keys import KeyRow
from chatport.targets import Bound, Target
from chatport.wire.chat import ChatChunk, ChatCompletion, ChatRequest, ChunkChoice, Delta, FinishReason
from chatport.wire.decode import decode_request
from chatport.wire.errors import Unavailable, UpstreamFailed
from chatport.wire.stream import Envelope, collect
from chatport.wire.tally import usage_of
from support.accounts import budget, ledger_over, rows
from support.memory import MemoryDatabase, memory_store

PROMPT = 7
WORDS = 12
LIMIT = 4000
CALLER = Caller("key_1", "one", admin=False, models=None)


class Upstream:
    """Makes one token at a time and counts what it made, request by request."""

    def __init__(self, *, fails: bool = False, breaks_after: int | None = None, pours: bool = False) -> None:
        self.fails = fails
        self.pours = pours
        self.breaks_after = breaks_after
        self.asked = 0
        self.made = 0
        self.whole: list[int] = []
        """Tokens of each answer that it made to its end."""

    async def bound(self, target: Target, request: ChatRequest) -> Bound:
        await asyncio.sleep(0)
        limit = request.output_limit
        return Bound(prompt_tokens=2 * PROMPT, output_tokens=limit, counted_by="bytes")

    async def complete(self, target: Target, request: ChatRequest, bound: Bound) -> ChatCompletion:
        async with self.stream(target, request, bound) as chunks:
            return await collect(Envelope("", 0, "m", ""), 1, chunks)

    @asynccontextmanager
    async def stream(
        self, target: Target, request: ChatRequest, bound: Bound
    ) -> AsyncIterator[AsyncIterator[ChatChunk]]:
        self.asked += 1
        await asyncio.sleep(0)
        if self.fails:
            raise Unavailable("down")
        if self.pours:
            yield Poured(self._made(request))
            return
        async with _closing(self._chunks(request)) as chunks:
            yield chunks

    async def _chunks(self, request: ChatRequest) -> AsyncGenerator[ChatChunk, None]:
        for made in self._made(request):
            yield made
            await asyncio.sleep(0)

    def _made(self, request: ChatRequest) -> Iterator[ChatChunk]:
        words = WORDS if request.output_limit is None else min(WORDS, request.output_limit)
        for number in range(words):
            if number == self.breaks_after:
                raise UpstreamFailed
            self.made += 1
            yield chunk(Delta(content=f"w{number:02} "))
        self.whole.append(words)
        yield chunk(Delta(), "length" if words < WORDS else "stop")
        last = chunk(None)
        yield ChatChunk(
            id="", created=0, model="m", choices=last.choices, system_fingerprint="", usage=usage_of(PROMPT, words)
        )

    async def models(self, target: Target) -> list[str]:
        return ["m"]

    async def probe(self, target: Target) -> None:
        return

    async def close(self) -> None:
        return


class Poured(PouredChunks):
    """Each chunk in a turn of the loop of its own, outside of the task that waits for them."""

    def __init__(self, made: Iterator[ChatChunk]) -> None:
        self._made = made

    async def __anext__(self) -> ChatChunk:
        await asyncio.sleep(0)
        for made in self._made:
            return made
        raise StopAsyncIteration

    async def pour(self, take: Take) -> bool:
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[bool] = loop.create_future()

        def arrives() -> None:
            if outcome.done():
                return
            try:
                made = next(self._made, None)
                if made is None or not take(made):
                    outcome.set_result(made is not None)
                else:
                    loop.call_soon(arrives)
            except Exception as exc:  # noqa: BLE001  it belongs to the task that waits
                outcome.set_exception(exc)

        loop.call_soon(arrives)
        return await outcome


@asynccontextmanager
async def _closing(chunks: AsyncGenerator[ChatChunk, None]) -> AsyncIterator[AsyncIterator[ChatChunk]]:
    try:
        yield chunks
    finally:
        await chunks.aclose()


def chunk(delta: Delta | None, finish: FinishReason | None = None) -> ChatChunk:
    choices = [] if delta is None else [ChunkChoice(index=0, delta=delta, finish_reason=finish)]
    return ChatChunk(id="", created=0, model="m", choices=choices, system_fingerprint="")


class Client:
    """What has reached it. `waits`: every frame has to be waited for."""

    def __init__(self, *, waits: bool = True) -> None:
        self.waits = waits
        self.body = b""
        self.ended = False

    async def head(self, headers: Headers) -> None:
        await asyncio.sleep(0)

    def now(self, data: bytes) -> bool:
        if self.waits:
            return False
        self.body += data
        return True

    async def data(self, data: bytes) -> None:
        self.body += data
        await asyncio.sleep(0)

    async def end(self) -> None:
        self.ended = True

    async def whole(self, headers: Headers, body: bytes) -> None:
        self.body += body
        self.ended = True

    @property
    def got_all(self) -> bool:
        return self.ended and b'"error"' not in self.body


class Process:
    """One life of the program over a database."""

    def __init__(self, store: Store, clock: Callable[[], float], *upstreams: Upstream, **settings: Any) -> None:
        self.store = store
        self.ledger: Ledger = ledger_over(store, clock, checkpoint_tokens=3, budget_wait=2.0, **settings)
        self.ledger.prices.known["m"] = (Price(id="price_1", model="m", rates=Rates(prompt=1000, completion=2000)),)
        targets = tuple(
            Target(id=f"t{number}", backend=f"t{number}", model="m", priority=number, remote=True)
            for number in range(len(upstreams))
        )
        model = Model(id="m", targets=targets, created=1, owned_by="test", attempts=len(upstreams))
        backends = {target.backend: upstream for target, upstream in zip(targets, upstreams, strict=True)}
        stages = Stages(
            unknown_fields=UnknownFields(),
            limits=Limits(MemoryCounters()),
            attempts=Attempts(Catalog([model]), backends, Routing(draw=lambda: 0.0)),
            ledger=self.ledger,
            keeping=Keeping(contents=True),
            replays=Replays(store.replays),
        )
        self.pipeline = Pipeline(stages)

    async def start(self) -> None:
        await self.ledger.budgets.load()
        await self.ledger.start()

    async def ask(self, request_id: str, client: Client, key: str | None = None, **fields: Any) -> None:
        body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hi"}], **fields}).encode()
        call = Call(
            id=request_id,
            caller=CALLER,
            request=decode_request(body),
            body=body,
            idempotency_key=key,
            received=0.0,
        )
        try:
            await self.pipeline.run(call, client)
        except (Unavailable, StoreUnavailable, UpstreamFailed):
            client.body += b'{"error"'
            client.ended = True


class World:
    """A process, its clients, and a clock; `step` is one turn of the loop."""

    def __init__(self, kind: Kind, amount: int | None) -> None:
        self.now = 1_800_000_000.0
        self.loop = asyncio.new_event_loop()
        self.store, self.database = memory_store()
        self.upstreams = kind.upstreams()
        self.clients: dict[str, Client] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.process = Process(self.store, lambda: self.now, *self.upstreams, slice_tokens=kind.slice_tokens)
        self.amount = amount
        self.waits = kind.waits
        self.overdrawn: list[str] = []
        self._run(self._prepare())

    async def _prepare(self) -> None:
        key = KeyRow(id="key_1", name="one", digest=b"1", prefix="p", admin=False, models=None, created_at=1)
        await self.store.keys.add(key)
        if self.amount is not None:
            await self.store.budgets.add(budget(id="bud_1", amount=self.amount), "test")
        await self.process.start()

    def _run(self, work: Awaitable[None]) -> None:
        self.loop.run_until_complete(asyncio.ensure_future(work, loop=self.loop))

    def begin(self, request_id: str, **fields: Any) -> None:
        client = self.clients[request_id] = Client(waits=self.waits)
        self.tasks[request_id] = self.loop.create_task(self.process.ask(request_id, client, **fields))

    def step(self) -> bool:
        """One turn. False: nothing is left to do."""
        if all(task.done() for task in self.tasks.values()):
            return False
        self.now += 0.01
        self.loop.call_soon(self.loop.stop)
        self.loop.run_forever()
        self.look()
        return True

    def look(self) -> None:
        """No budget is overdrawn, at any instant."""
        for balance in self.database.peek("SELECT posted, held FROM balances"):
            if self.amount is not None and sum(balance) > self.amount:
                self.overdrawn.append(f"{balance} of {self.amount}")

    def kill(self) -> MemoryDatabase:
        """The process is gone; what was committed is left."""
        left = self.database.copy()

        def dead() -> None:
            raise StoreUnavailable("the process is dead")

        self.database.before = dead
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        idle = 0
        for _ in range(200):
            idle = 0 if asyncio.all_tasks(self.loop) else idle + 1
            if idle > 10:  # what is called some turns later may begin a task
                break
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()
        return left


class Kind:
    """A kind of request: who is asked, what is asked, and what happens on the way."""

    def __init__(
        self,
        *upstreams: dict[str, Any],
        amount: int | None = LIMIT,
        slice_tokens: int = 512,
        gone_at: int | None = None,
        asks: int = 1,
        waits: bool = True,
        **fields: Any,
    ) -> None:
        self.waits = waits
        self._upstreams = upstreams or ({},)
        self.amount = amount
        self.slice_tokens = slice_tokens
        self.gone_at = gone_at
        self.asks = asks
        self.fields = fields

    def upstreams(self) -> list[Upstream]:
        return [Upstream(**settings) for settings in self._upstreams]


KINDS = {
    "plain": Kind(amount=None),
    "plain under a budget": Kind(),
    "stream": Kind(stream=True),
    "stream without a budget": Kind(amount=None, stream=True, stream_options={"include_usage": True}),
    "fail-over": Kind({"fails": True}, {}, stream=True),
    "fail-over of a whole reply": Kind({"fails": True}, {}, amount=None),
    "breaks half-way": Kind({"breaks_after": 5}, stream=True),
    "cut": Kind(amount=2 * PROMPT * 2 + 40, slice_tokens=10, asks=2, stream=True),
    "limited by what is left": Kind(amount=2 * PROMPT + 5, stream=True),
    "poured": Kind({"pours": True}, waits=False, stream=True),
    "poured to a slow client": Kind({"pours": True}, stream=True),
    "poured, breaks half-way": Kind({"pours": True, "breaks_after": 5}, waits=False, stream=True),
    "poured, cut": Kind({"pours": True}, amount=4 * PROMPT + 40, slice_tokens=10, asks=2, waits=False, stream=True),
    "poured, cut, slow": Kind({"pours": True}, amount=4 * PROMPT + 40, slice_tokens=10, asks=2, stream=True),
    "poured, client gone": Kind({"pours": True}, waits=False, stream=True, gone_at=14),
    "poured idempotent stream": Kind({"pours": True}, waits=False, stream=True, key="again"),
    "to a client that is ready": Kind(waits=False, stream=True),
    "client gone": Kind(stream=True, gone_at=14),
    "client gone early": Kind(stream=True, gone_at=3),
    "idempotent": Kind(key="again"),
    "idempotent stream": Kind(stream=True, key="again"),
    "stored": Kind(store=True),
    "two that share a budget": Kind(amount=4 * PROMPT + 2 * WORDS + 8, slice_tokens=8, asks=2, stream=True),
    "three of which one waits": Kind(amount=4 * PROMPT + 2 * WORDS + 2, asks=3, max_tokens=WORDS),
}


class Died(KeyboardInterrupt):
    """The process dies here. (Of all exceptions, the loop lets only this kind through.)"""


def points(kind: Kind) -> Iterator[tuple[str, World]]:
    """The world at each of its points: after each turn of the loop, and before and after each write."""
    turns = 0
    while True:
        world = started(kind)
        alive = all(turn(world, kind, number) for number in range(turns))
        yield f"turn {turns}", world
        if not alive:
            break
        turns += 1
    for when in ("before", "after"):
        number = 0
        while True:
            world = started(kind)
            died = dies_at(world, kind, when, number)
            yield f"{when} write {number}", world
            if not died:
                break
            number += 1


def started(kind: Kind) -> World:
    world = World(kind, kind.amount)
    for number in range(kind.asks):
        world.begin(f"req_{number}", **kind.fields)
    return world


def turn(world: World, kind: Kind, number: int) -> bool:
    if number == kind.gone_at:
        for task in world.tasks.values():
            task.cancel()
    return world.step()


def dies_at(world: World, kind: Kind, when: str, number: int) -> bool:
    """Runs until the write with this number; whether there was one."""
    first = world.database.writes + (when == "before")

    def die() -> None:
        if world.database.writes + (when == "before") - first == number + (when == "after"):
            raise Died

    setattr(world.database, when, die)
    try:
        for turns in range(10_000):
            if not turn(world, kind, turns):
                return False
    except Died:
        return True
    finally:
        setattr(world.database, when, lambda: None)
    raise AssertionError("the request does not end")


def check(where: str, world: World, kind: Kind) -> None:
    """The promises, in a new process over what the old one has left."""
    asked, made = sum(up.asked for up in world.upstreams), sum(up.made for up in world.upstreams)
    whole = [tokens for up in world.upstreams for tokens in up.whole]
    held = world.database.peek("SELECT request_id, completion_tokens FROM holds")
    checkpoints = {str(request_id): int(tokens) for request_id, tokens in held}
    left = world.kill()
    assert not world.overdrawn, where
    loop = asyncio.new_event_loop()
    with closing(loop):
        loop.run_until_complete(recovered(where, world, kind, left, (asked, made, whole), checkpoints))


async def recovered(
    where: str,
    world: World,
    kind: Kind,
    left: MemoryDatabase,
    upstream: tuple[int, int, list[int]],
    checkpoints: dict[str, int],
) -> None:
    store = Store(left)
    heir = Process(store, lambda: world.now + 60, *kind.upstreams())
    await heir.start()
    await heir.ledger.recover()
    asked, made, whole = upstream
    postings = {row.id: row for row in await rows(store, "postings")}
    entries = await rows(store, "entries")
    assert len(postings) == len(await rows(store, "postings")), where
    assert await rows(store, "holds") == [], where
    assert set(postings) <= set(world.clients), where
    # Whatever an upstream was asked is posted, and what it made is posted at most once.
    assert asked == 0 or postings, where
    assert sum(row.completion_tokens for row in postings.values()) <= made, where
    for request_id, tokens in checkpoints.items():
        assert postings[request_id].completion_tokens >= tokens, where
        assert postings[request_id].ending == "crash", where
    complete = [row for row in postings.values() if row.ending == "complete"]
    assert not Counter(row.completion_tokens for row in complete) - Counter(whole), where
    assert all(row.prompt_tokens == PROMPT for row in complete), where
    for request_id, client in world.clients.items():
        if client.got_all:
            assert postings[request_id].ending in ("complete", "cut"), where
    for balance in await rows(store, "balances"):
        mine = [entry.amount for entry in entries if entry.budget_id == balance.budget_id]
        assert (balance.posted, balance.held) == (sum(mine), 0), where
        over = any(row.over_hold for row in postings.values())
        assert over or kind.amount is None or balance.posted <= kind.amount, where
    # What is kept of an answer is there if and only if that was posted: whole, or cut.
    answered = {row.id for row in postings.values() if row.ending in ("complete", "cut")}
    replied = {row.request_id for row in await rows(store, "contents") if row.reply is not None}
    assert replied == answered, where
    assert len(await rows(store, "completions")) == (len(answered) if "store" in kind.fields else 0), where
    await repeated(where, heir, kind, answered)


async def repeated(where: str, heir: Process, kind: Kind, answered: set[str]) -> None:
    """An idempotent repeat in the new process: at no cost where an answer was paid for."""
    if "key" not in kind.fields:
        return
    before = len(await rows(heir.store, "postings"))
    again = Client()
    await heir.ask("req_again", again, **kind.fields)
    assert again.got_all, where
    after = await rows(heir.store, "postings")
    assert len(after) == (before if answered else before + 1), where
    third = Client()
    await heir.ask("req_third", third, **kind.fields)
    assert third.body == again.body, where
    assert len(await rows(heir.store, "postings")) == len(after), where


@pytest.mark.parametrize("name", KINDS)
def test_whenever_the_process_dies_the_promises_hold(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    kind = KINDS[name]
    count = 0
    for where, world in points(kind):
        check(f"{name}: {where}", world, kind)
        count += 1
    with capsys.disabled():
        print(f"\n{name}: {count} points", end="")
    assert count > 10


async def test_an_answer_that_the_store_did_not_take_is_not_made_again() -> None:
    """The store was down when it was to be posted: its client hears 503, and its repeat gets it once it is posted."""
    store, database = memory_store()
    upstream = Upstream()
    process = Process(store, lambda: 1_800_000_000.0, upstream)
    await store.keys.add(
        KeyRow(id="key_1", name="one", digest=b"1", prefix="p", admin=False, models=None, created_at=1)
    )
    await process.start()

    def down() -> None:
        if upstream.whole:
            raise StoreUnavailable("down")

    database.before = down
    first, second = Client(), Client()
    await process.ask("req_0", first, key="again")
    assert not first.got_all
    database.before = lambda: None
    repeat = asyncio.ensure_future(process.ask("req_1", second, key="again"))
    await asyncio.sleep(0.05)
    assert not repeat.done()
    await process.ledger.retry()
    await repeat
    assert second.got_all
    assert (upstream.asked, [row.id for row in await rows(store, "postings")]) == (1, ["req_0"])
