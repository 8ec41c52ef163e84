"""One request at several targets: scripted ones, a clock and a sleep of the test's own."""

from __future__ import annotations

import asyncio
import json
import time
from functools import partial
from typing import Any

import pytest
from msgspec import structs

from chatport.attempts import Attempts, Trail, send_on
from chatport.backends.scripted import ScriptedBackend
from chatport.counters.memory import MemoryCounters
from chatport.envelopes import envelope, stream_grammar
from chatport.pipeline import Call
from chatport.policy.catalog import Catalog, Model
from chatport.policy.keys import Caller
from chatport.policy.limits import Limits, Subjects
from chatport.policy.prices import Price, Rates
from chatport.policy.routing import Routing
from chatport.store.limits import Limit, Rules
from chatport.targets import EVERY_FEATURE, Bound, Feature, Target
from chatport.wire.chat import ChatRequest
from chatport.wire.decode import decode_request
from chatport.wire.errors import (
    ApiError,
    ContextExceeded,
    InternalError,
    InvalidRequest,
    RateLimited,
    Unavailable,
    Unsupported,
)
from support.accounts import ledger_over, meter
from support.memory import memory_store
from support.told import Told

CALLER = Caller("key_1", "test", admin=False, models=None)


class Failing(ScriptedBackend):
    """Raises these, one for each time it is asked, then answers."""

    def __init__(self, name: str, *errors: ApiError) -> None:
        super().__init__([name])
        self.errors = list(errors)
        self.asked = 0

    async def bound(self, target: Target, request: ChatRequest) -> Bound:
        self.asked += 1
        if self.errors and isinstance(self.errors[0], ContextExceeded):
            raise self.errors.pop(0)
        return await super().bound(target, request)

    def _chunks(self, *arguments: Any) -> Any:
        if self.errors:
            raise self.errors.pop(0)
        return super()._chunks(*arguments)


class World:
    """Models and their backends, and a clock that only sleeping moves."""

    def __init__(self, *models: Model, **backends: ScriptedBackend) -> None:
        self.now = 1000.0
        self.slept: list[float] = []
        self.catalog = Catalog(models)
        self.limits = Limits(MemoryCounters())
        self.routing = Routing(draw=lambda: 0.0)
        self.attempts = Attempts(self.catalog, backends, self.routing, clock=lambda: self.now, sleep=self.sleep)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def call(self, **fields: Any) -> Call:

        body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}).encode()
        request = decode_request(body, keep_unknown=True)
        return Call(id="r", caller=CALLER, request=request, body=body, idempotency_key=None, received=0.0)

    async def ask(self, *, stream: bool = False, **fields: Any) -> tuple[str, Trail]:
        """What was answered, and what happened."""
        call = self.call(**fields)
        journey = self.attempts.plan(self.catalog.find(call.request, CALLER), call, meter())
        who = Subjects(CALLER.key_id, None, journey.model.id, None)
        call.trail.admission = await self.limits.admit(who, time.monotonic())
        if not stream:
            _, answer = await self.attempts.complete(journey)
            return str(answer.choices[0].message.content), call.trail
        grammar_of = partial(stream_grammar, "req_1", request=call.request)
        async with self.attempts.stream(journey, grammar_of) as answered:
            await send_on(journey.meter, answered, told := Told())
        return told.text, call.trail


def model(*targets: str, name: str = "m", **more: Any) -> Model:
    return Model(
        **{
            "id": name,
            "targets": tuple(target(one) for one in targets),
            "created": 1,
            "owned_by": "t",
            "attempts": 3,
            **more,
        }
    )


def target(name: str, **more: Any) -> Target:
    return Target(**{"id": name, "backend": name, "model": "m", "remote": True, **more})


DOWN = Unavailable("down")
both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


@both
async def test_the_first_that_works_answers(stream: bool) -> None:
    world = World(model("a", "b"), a=Failing("a", DOWN), b=Failing("b"))
    said, trail = await world.ask(stream=stream)
    assert (said, trail.target, trail.attempts, world.slept) == ("b", "b", 2, [])
    assert trail.headers == [(b"x-chatport-target", b"b"), (b"x-chatport-attempts", b"2")]


@both
@pytest.mark.parametrize("error", [DOWN, InternalError("bad key"), RateLimited("x", retry_after=50)])
async def test_every_fault_of_an_upstreams_fails_over(error: ApiError, stream: bool) -> None:
    world = World(model("a", "b"), a=Failing("a", error), b=Failing("b"))
    assert (await world.ask(stream=stream))[0] == "b"


@both
async def test_a_clients_error_is_never_tried_again(stream: bool) -> None:
    a, b = Failing("a", InvalidRequest("no")), Failing("b")
    world = World(model("a", "b"), a=a, b=b)
    with pytest.raises(InvalidRequest):
        await world.ask(stream=stream)
    assert (a.asked, b.asked) == (1, 0)


@both
async def test_one_target_is_tried_again_after_a_short_sleep(stream: bool) -> None:
    world = World(model("a"), a=Failing("a", DOWN, DOWN))
    said, trail = await world.ask(stream=stream)
    assert (said, trail.attempts, world.slept) == ("a", 3, [0.25, 0.5])


async def test_so_often_and_no_more() -> None:
    a = Failing("a", *[DOWN] * 9)
    world = World(model("a"), a=a)
    with pytest.raises(Unavailable):
        await world.ask()
    assert a.asked == 3


async def test_every_target_is_tried_once_however_many() -> None:
    backends = {name: Failing(name, DOWN) for name in "abcde"}
    world = World(model(*"abcde", attempts=2), **backends)
    with pytest.raises(Unavailable):
        await world.ask()
    assert [backend.asked for backend in backends.values()] == [1] * 5


async def test_what_can_not_pass_is_not_tried_again() -> None:
    a = Failing("a", *[InternalError("bad key")] * 9)
    world = World(model("a"), a=a)
    with pytest.raises(InternalError):
        await world.ask()
    assert (a.asked, world.slept) == (1, [])


@pytest.mark.parametrize(("asked", "slept"), [(1.5, [1.5]), (3.0, [])])
async def test_what_an_upstream_asks_for(asked: float, slept: list[float]) -> None:
    world = World(model("a"), a=Failing("a", RateLimited("x", retry_after=asked)))
    if slept:
        assert (await world.ask())[0] == "a"
    else:
        with pytest.raises(RateLimited) as caught:
            await world.ask()
        assert caught.value.retry_after == asked
    assert world.slept == slept


async def test_after_the_deadline_nothing_begins() -> None:
    a = Failing("a", DOWN, DOWN)
    world = World(model("a", deadline=0.2), a=a)
    with pytest.raises(Unavailable):
        await world.ask()
    assert a.asked == 1


async def test_the_client_hears_what_gives_hope() -> None:
    world = World(model("a", "b"), a=Failing("a", RateLimited("x", retry_after=9)), b=Failing("b", InternalError()))
    with pytest.raises(RateLimited):
        await world.ask()


@both
async def test_fallback_models(stream: bool) -> None:
    other = model("b", name="other", fallbacks=())
    world = World(model("a", fallbacks=("other",)), other, a=Failing("a", DOWN), b=Failing("b"))
    said, trail = await world.ask(stream=stream)
    assert (said, trail.fallback, trail.target) == ("b", "other", "b")
    assert (b"x-chatport-fallback", b"other") in trail.headers


async def test_a_fallback_answers_under_its_own_name() -> None:
    world = World(model("a", fallbacks=("other",)), model("b", name="other"), a=Failing("a", DOWN), b=Failing("b"))
    call = world.call()
    route, _ = await world.attempts.complete(
        world.attempts.plan(world.catalog.find(call.request, CALLER), call, meter())
    )
    assert envelope("req_1", route).model == "other"


async def test_a_fallback_answers_within_its_own_limits() -> None:
    """Those of the model that was asked for hold too; the fallback's are charged where it answers, and only there."""
    first, second = model("a", fallbacks=("n",)), model("b", name="n")
    world = World(first, second, a=Failing("a", DOWN, DOWN), b=Failing("b"))
    world.limits.configure([Limit(kind="model", subject="n", rules=Rules(rpm=1), mode="enforce")])
    said, trail = await world.ask()
    assert (said, trail.fallback) == ("b", "n")
    assert (b"x-ratelimit-remaining-requests", b"0") in trail.headers
    with pytest.raises(RateLimited, match="Requests per minute of the model"):
        await world.ask()
    assert (await world.ask())[0] == "a"


async def test_a_fallback_that_does_not_answer_takes_and_binds_nothing() -> None:
    """Neither its tokens nor its place: the next one answers within its own limits."""
    first, second, third = model("a", fallbacks=("n", "o")), model("b", name="n"), model("c", name="o")
    world = World(first, second, third, a=Failing("a", DOWN, DOWN), b=Failing("b", DOWN), c=Failing("c"))
    small = Limit(kind="model", subject="n", rules=Rules(tpm=100, concurrency=1), mode="enforce")
    world.limits.configure([small])
    said, trail = await world.ask(max_tokens=50)
    assert (said, trail.fallback) == ("c", "o")
    n = Subjects("key_1", None, "n", None)
    assert [one.used for one in await world.limits.standing(n, time.monotonic())] == [0, 0]
    long = [{"role": "user", "content": "word " * 200}]
    assert (await world.ask(messages=long))[0] == "c", "what is too much for one fallback goes to the next"


async def test_a_limit_that_changes_meanwhile_is_charged_once() -> None:
    first, second = model("a", fallbacks=("n",)), model("b", name="n")
    world = World(first, second, a=Failing("a", DOWN), b=Failing("b"))
    limit = Limit(kind="key", subject="key_1", rules=Rules(rpm=5), mode="enforce")
    world.limits.configure([limit])
    who = Subjects("key_1", None, "m", None)
    admission = await world.limits.admit(who, time.monotonic())
    world.limits.configure([structs.replace(limit, rules=Rules(rpm=9))])
    await admission.join("n", 10, time.monotonic())
    assert [one.used for one in await world.limits.standing(who, time.monotonic())] == [1]


async def test_who_can_not_honour_the_request_is_not_asked() -> None:
    blind = target("a", features=EVERY_FEATURE - {Feature.LOGPROBS})
    world = World(model(targets=(blind, target("b"))), a=Failing("a"), b=Failing("b"))
    assert (await world.ask(logprobs=True))[0] == "b"
    world = World(model(targets=(blind,)), a=Failing("a"))
    with pytest.raises(Unsupported):
        await world.ask(logprobs=True)


async def test_unknown_fields_go_to_who_takes_them() -> None:
    world = World(
        model(targets=(target("a"), target("b", extra_params="drop", priority=1))), a=Failing("a"), b=Failing("b")
    )
    assert (await world.ask(top_k=1))[0] == "b"
    world = World(model("a"), a=Failing("a"))
    with pytest.raises(InvalidRequest, match="top_k"):
        await world.ask(top_k=1)


async def test_a_window_too_small_is_passed_by() -> None:
    world = World(model("a", "b"), a=Failing("a", ContextExceeded(10, 20)), b=Failing("b"))
    assert (await world.ask())[0] == "b"
    world = World(model("a"), a=Failing("a", ContextExceeded(10, 20)))
    with pytest.raises(ContextExceeded):
        await world.ask()


async def test_a_full_target_is_passed_by() -> None:
    full = target("a", max_concurrency=1)
    world = World(model(targets=(full, target("b", priority=1))), a=Failing("a"), b=Failing("b"))
    standing = world.routing.standing(full)
    probes = standing.enter()
    assert (await world.ask())[0] == "b"
    standing.leave(probes)
    assert (await world.ask())[0] == "a"
    world = World(model(targets=(full,), attempts=1), a=Failing("a"))
    world.routing.standing(full).enter()
    with pytest.raises(Unavailable, match="as many requests"):
        await world.ask()


async def test_after_the_first_real_chunk_nobody_takes_over() -> None:
    a = ScriptedBackend(["one", "two"], fail_status=503, fail_after=1)
    world = World(model("a", "b"), a=a, b=Failing("b"))
    with pytest.raises(Unavailable):
        await world.ask(stream=True)
    assert world.routing.standing(target("a")).health.failures == 1
    assert a.in_flight == 0


async def test_before_it_somebody_does() -> None:
    a = ScriptedBackend(["one"], fail_status=503, fail_after=0)
    world = World(model("a", "b"), a=a, b=Failing("b"))
    assert (await world.ask(stream=True))[0] == "b"


async def test_cancelling_frees_the_place() -> None:
    world = World(model("a"), a=ScriptedBackend(["x"] * 100, delay_ms=20))
    asking = asyncio.create_task(world.ask())
    await asyncio.sleep(0.03)
    assert world.routing.standing(target("a")).in_flight == 1
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert world.routing.standing(target("a")).in_flight == 0


async def test_a_model_in_this_server_leaves_no_trail() -> None:
    world = World(model(targets=(target("a", remote=False),)), a=Failing("a"))
    assert (await world.ask())[1].headers == []


@both
async def test_a_target_costs_what_its_entry_in_a_list_of_prices_says(stream: bool) -> None:
    ledger = ledger_over(memory_store()[0])
    listed = Price(id="price_1", model="deepseek/m", source="genai-prices 1", rates=Rates(prompt=1000, completion=1000))
    ledger.prices.known["deepseek/m"] = (listed,)
    priced = model(targets=(target("a", price_list="deepseek"),))
    world, one = World(priced, a=Failing("a")), meter(ledger, id="req_listed")
    call = world.call()
    journey = world.attempts.plan(priced, call, one)
    if stream:
        async with world.attempts.stream(journey, lambda route: stream_grammar("req_1", route, call.request)):
            pass
    else:
        await world.attempts.complete(journey)
    held = await ledger.journal.held("req_listed")
    assert held is not None
    assert held.account.price_id == "price_1"
