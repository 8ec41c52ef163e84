"""One request through the whole pipeline: a real store, the scripted backend, a sink that remembers."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pytest
from msgspec import structs

from chatport.attempts import Answer, Attempts, send_on
from chatport.backends.scripted import ScriptedBackend
from chatport.counters.memory import MemoryCounters
from chatport.delivery import Headers
from chatport.pipeline import Call, Pace, Pipeline, Stages
from chatport.policy.catalog import Catalog, Model
from chatport.policy.keeping import Keeping
from chatport.policy.keys import Caller, Keys
from chatport.policy.limits import Limits, Subjects
from chatport.policy.meter import Going
from chatport.policy.replays import Replays
from chatport.policy.routing import Routing
from chatport.policy.stored import StoredCompletions
from chatport.policy.strictness import UnknownFields
from chatport.store import Store, open_store
from chatport.store.limits import Limit, Rules
from chatport.targets import EVERY_FEATURE, Bound, Feature, Target
from chatport.wire.chat import ChatChunk, ChunkChoice, Delta, FinishReason, Usage
from chatport.wire.decode import decode_request
from chatport.wire.errors import (
    ApiError,
    InvalidRequest,
    ModelNotFound,
    NotFound,
    RateLimited,
    Unavailable,
    Unsupported,
)
from chatport.wire.stream import Envelope, StreamNormaliser
from chatport.wire.tally import usage_of
from support.accounts import budget, ledger_over, meter, rows
from support.memory import memory_store
from support.stream_rules import check_stream
from support.told import Told

Ask = Callable[..., Call]


class Reply:
    """What a client got."""

    def __init__(self) -> None:
        self.headers: dict[bytes, bytes] = {}
        self.body = b""
        self.ended = False
        self.started = asyncio.Event()

    async def head(self, headers: Headers) -> None:
        assert not self.headers, "a second head"
        self.headers = dict(headers)

    def now(self, data: bytes) -> bool:
        assert self.headers, "data before the head"
        self.body += data
        self.started.set()
        return True

    async def data(self, data: bytes) -> None:
        self.now(data)

    async def end(self) -> None:
        self.ended = True

    async def whole(self, headers: Headers, body: bytes) -> None:
        await self.head(headers)
        await self.data(body)
        await self.end()

    def json(self) -> Any:
        return json.loads(self.body)

    def frames(self) -> list[Any]:
        lines = [line.removeprefix(b"data: ") for line in self.body.split(b"\n\n") if line.startswith(b"data: ")]
        return [json.loads(line) for line in lines if line != b"[DONE]"]


def backends() -> dict[str, ScriptedBackend]:
    return {
        "hello": ScriptedBackend(["Hel", "lo"]),
        "slow": ScriptedBackend(["a", "b", "c"], delay_ms=20),
        "endless": ScriptedBackend(["x"] * 1000, delay_ms=20),
        "broken": ScriptedBackend(fail_status=503),
        "breaks": ScriptedBackend(["a", "b", "c"], fail_status=500, fail_after=2),
        "plain": ScriptedBackend(["no tools here"]),
        "wordy": ScriptedBackend(["word "] * 3000),
    }


def model(name: str) -> Model:
    features = EVERY_FEATURE - {Feature.TOOLS} if name == "plain" else EVERY_FEATURE
    target = Target(id=name, backend=name, model=name, features=features, fingerprint="fp_test")
    return Model(id=name, aliases=(f"{name}-alias",), targets=(target,), created=1, owned_by="test")


class House:
    def __init__(self, store: Store, pipeline: Pipeline, caller: Caller, other: Caller) -> None:
        self.store = store
        self.pipeline = pipeline
        self.caller = caller
        self.other = other
        self._calls = 0

    def call(self, model: str, *, caller: Caller | None = None, key: str | None = None, **fields: Any) -> Call:
        body = json.dumps({"model": model, "messages": [{"role": "user", "content": "hi"}], **fields}).encode()
        self._calls += 1
        return Call(
            id=f"req_{self._calls}",
            caller=caller or self.caller,
            request=decode_request(body),
            body=body,
            idempotency_key=key,
            received=time.perf_counter(),
        )

    async def run(self, model: str, **fields: Any) -> Reply:
        reply = Reply()
        await self.pipeline.run(self.call(model, **fields), reply)
        assert reply.ended
        return reply


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_store(f"sqlite:///{tmp_path}/t.db") as store:
        keys = Keys(store.keys)
        callers = []
        for name in ("one", "two"):
            key = await keys.create(name=name, now=time.time())
            await keys.load()
            callers.append(keys.authenticate(f"Bearer {key.key}", time.time()))
        models = [model(name) for name in backends()]
        attempts = Attempts(Catalog(models), backends(), Routing())
        stages = Stages(
            unknown_fields=UnknownFields(),
            limits=Limits(MemoryCounters()),
            attempts=attempts,
            ledger=ledger_over(store),
            keeping=Keeping(),
            replays=Replays(store.replays),
        )
        pipeline = Pipeline(stages)
        yield House(store, pipeline, *callers)


async def test_a_completion_is_one_json_body(house: House) -> None:
    reply = await house.run("hello-alias")
    answer = reply.json()
    assert answer["choices"][0]["message"]["content"] == "Hello"
    assert answer["model"] == "hello"
    assert answer["system_fingerprint"] == "fp_test"
    assert answer["id"].startswith("chatcmpl-")
    assert abs(answer["created"] - time.time()) < 60
    assert reply.headers[b"openai-version"] == b"2020-10-01"
    assert int(reply.headers[b"openai-processing-ms"]) >= 0


@pytest.mark.parametrize("usage", [False, True])
async def test_a_stream_is_grammatical_and_ends_with_done(house: House, usage: bool) -> None:
    reply = await house.run("hello", stream=True, n=2, stream_options={"include_usage": usage})
    assert reply.headers[b"content-type"].startswith(b"text/event-stream")
    assert reply.headers[b"cache-control"] == b"no-cache"
    assert reply.body.endswith(b"data: [DONE]\n\n")
    check_stream(reply.frames(), choices=2, include_usage=usage)


async def test_ids_differ_between_requests(house: House) -> None:
    assert (await house.run("hello")).json()["id"] != (await house.run("hello")).json()["id"]


@pytest.mark.parametrize(
    ("model", "fields", "error"),
    [
        ("nothing", {}, ModelNotFound),
        ("plain", {"tools": [{"type": "function", "function": {"name": "f"}}]}, Unsupported),
        ("broken", {}, Unavailable),
        ("broken", {"stream": True}, Unavailable),
    ],
)
async def test_what_fails_before_the_first_byte_is_raised(
    house: House, model: str, fields: dict[str, Any], error: type[ApiError]
) -> None:
    reply = Reply()
    with pytest.raises(error):
        await house.pipeline.run(house.call(model, **fields), reply)
    assert not reply.headers


async def test_what_fails_after_the_first_byte_is_a_frame_without_done(house: House) -> None:
    reply = await house.run("breaks", stream=True)
    assert set(reply.frames()[-1]) == {"error"}
    assert reply.frames()[-1]["error"]["type"] == "api_error"
    assert b"[DONE]" not in reply.body
    assert all(choice["finish_reason"] is None for frame in reply.frames()[:-1] for choice in frame["choices"])


async def test_a_silent_stream_commits_after_its_time(house: House) -> None:
    house.pipeline.pace = Pace(commit_after=0.005, keepalive=0.005)
    reply = await house.run("slow", stream=True)
    assert reply.body.startswith(b": keep-alive")
    check_stream(reply.frames(), choices=1, include_usage=False)


async def test_stored_when_asked_for_streamed_or_not(house: House) -> None:
    stored = StoredCompletions(house.store.completions)
    whole = (await house.run("hello", store=True, metadata={"a": "b"})).json()
    assert whole["metadata"] == {"a": "b"}
    streamed = (await house.run("hello", store=True, stream=True)).frames()[0]["id"]
    for completion in (whole["id"], streamed):
        assert (await stored.get(house.caller, completion)).choices[0].message.content == "Hello"
        with pytest.raises(NotFound):
            await stored.get(house.other, completion)
    unasked = (await house.run("hello")).json()["id"]
    with pytest.raises(NotFound):
        await stored.get(house.caller, unasked)


@pytest.mark.parametrize("stream", [False, True])
async def test_an_idempotency_key_brings_the_same_bytes_back(house: House, stream: bool) -> None:
    first = await house.run("slow", key="once", stream=stream)
    again = await house.run("slow", key="once", stream=stream)
    assert again.body == first.body
    assert again.headers[b"content-type"] == first.headers[b"content-type"]
    assert again.headers[b"x-chatport-replayed"] == b"true"
    assert (await house.run("slow", key="once", stream=stream, caller=house.other)).body != first.body


async def test_an_idempotency_key_with_another_body_is_a_conflict(house: House) -> None:
    await house.run("hello", key="once")
    with pytest.raises(InvalidRequest) as caught:
        await house.run("hello", key="once", seed=1)
    assert caught.value.code == "idempotency_conflict"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_repeat_joins_the_first_while_it_runs(house: House, stream: bool) -> None:
    first, second = await asyncio.gather(*(house.run("slow", key="twice", stream=stream) for _ in range(2)))
    assert first.body == second.body


async def test_a_repeat_takes_over_when_the_first_client_leaves(house: House) -> None:
    reply = Reply()
    first = asyncio.create_task(house.pipeline.run(house.call("slow", key="left", stream=True), reply))
    await reply.started.wait()
    second = asyncio.create_task(house.run("slow", key="left", stream=True))
    await asyncio.sleep(0)
    first.cancel()
    whole = await second
    check_stream(whole.frames(), choices=1, include_usage=False)
    assert whole.frames()[0]["id"] != json.loads(reply.body.split(b"\n\n")[0].removeprefix(b"data: "))["id"]


async def test_a_failed_request_keeps_nothing_for_its_idempotency_key(house: House) -> None:
    for _ in range(2):
        with pytest.raises(Unavailable):
            await house.run("broken", key="failing")


async def test_cancelling_ends_the_backends_work(house: House) -> None:
    reply = Reply()
    running = asyncio.create_task(house.pipeline.run(house.call("endless", stream=True), reply))
    await reply.started.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    seen = reply.body
    await asyncio.sleep(0.06)
    assert reply.body == seen
    assert not reply.ended


# --- What the account pays for ----------------------------------------------------------------------------------------


def chunk(content: str, finish: FinishReason | None = None, usage: Usage | None = None) -> ChatChunk:
    choices = [ChunkChoice(index=0, delta=Delta(content=content), finish_reason=finish)]
    return ChatChunk(id="", created=0, model="m", choices=choices, system_fingerprint="", usage=usage)


async def paid(amount: int, *raw: ChatChunk, late: bool = False) -> tuple[list[ChatChunk], Any]:
    """What a client gets of an answer under a budget of so many tokens, and the posting. The prompt has ten."""
    store, _ = memory_store()
    await store.budgets.add(budget(amount=amount), "test")
    ledger = ledger_over(store, slice_tokens=16)
    await ledger.budgets.load()
    grammar = StreamNormaliser(Envelope("c", 1, "m", "fp"), 1, include_usage=False)

    async def rest() -> AsyncIterator[ChatChunk]:
        for one in raw[1:]:
            yield one

    async with meter(ledger) as one:
        bound = Bound(prompt_tokens=10, output_tokens=None, counted_by="exact")
        await one.cover(Going(model="m", target="t", bound=bound, choices=1, attempt=1))
        answer = Answer(cast("Any", None), grammar, grammar.push(raw[0]), rest())
        await send_on(one, answer, told := Told(late=late))
        await one.settle(answer.usage)
    return told.chunks, (await rows(store, "postings"))[0]


def text_and_end(chunks: list[ChatChunk]) -> tuple[str, list[str]]:
    choices = [choice for each in chunks for choice in each.choices]
    ends = [choice.finish_reason for choice in choices if choice.finish_reason is not None]
    return "".join(str(choice.delta.content or "") for choice in choices), [*ends]


async def test_an_answer_that_comes_as_one_piece_is_whole_even_if_nothing_is_left() -> None:
    """Its end was lost, and a reply without one is a 500 that was paid for."""
    chunks, posting = await paid(40, chunk("many words at once, more than is held", "stop", usage_of(10, 9)))
    assert text_and_end(chunks) == ("many words at once, more than is held", ["stop"])
    assert (posting.ending, posting.completion_tokens) == ("complete", 9)


async def test_what_a_client_gets_is_counted_before_and_covered_before_the_next() -> None:
    chunks, posting = await paid(40, *[chunk("word ")] * 20)
    said, ends = text_and_end(chunks)
    assert ends == ["length"]
    assert (posting.ending, posting.counted_by) == ("cut", "estimate")
    assert 0 < len(said) // 5 <= posting.completion_tokens
    assert posting.prompt_tokens + posting.completion_tokens <= 40


@pytest.mark.parametrize("amount", [40, 4000], ids=["cut", "whole"])
async def test_a_client_that_must_be_waited_for_gets_the_same_answer(amount: int) -> None:
    raw = [*[chunk("word ")] * 20, chunk("", "stop", usage_of(10, 20))]
    soon, posted_soon = await paid(amount, *raw)
    late, posted_late = await paid(amount, *raw, late=True)
    assert text_and_end(late) == text_and_end(soon)
    assert posted_late.completion_tokens == posted_soon.completion_tokens


class LeavesAtTwo(Told):
    def push(self, chunk: ChatChunk) -> bool:
        super().push(chunk)
        if "two" in self.text:
            raise asyncio.CancelledError
        return True


async def test_a_client_that_leaves_in_the_middle_of_a_piece_has_paid_for_it() -> None:
    store, _ = memory_store()
    grammar = StreamNormaliser(Envelope("c", 1, "m", "fp"), 1, include_usage=False)

    async def rest() -> AsyncIterator[ChatChunk]:
        yield chunk("two ")

    async def leave() -> None:
        async with meter(ledger_over(store)) as one:
            bound = Bound(prompt_tokens=10, output_tokens=None, counted_by="exact")
            await one.cover(Going(model="m", target="t", bound=bound, choices=1, attempt=1))
            answer = Answer(cast("Any", None), grammar, grammar.push(chunk("one ")), rest())
            await send_on(one, answer, LeavesAtTwo())

    with pytest.raises(asyncio.CancelledError):
        await leave()
    [posting] = await rows(store, "postings")
    assert (posting.ending, posting.completion_tokens) == ("client_gone", 2)


# --- Limits ----------------------------------------------------------------------------------------------------------


def limited(house: House, **rules: int) -> None:
    house.pipeline.limits.configure([Limit(kind="key", subject="*", rules=Rules(**rules))])


async def used(house: House, model: str = "hello", end_user: str | None = None) -> dict[str, int]:
    who = Subjects(house.caller.key_id, None, model, end_user)
    return {each.limit: each.used for each in await house.pipeline.limits.standing(who, time.monotonic())}


def trail_of(call: Call) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in call.trail.headers}


async def refused(house: House, call: Call) -> RateLimited:
    with pytest.raises(RateLimited) as caught:
        await house.pipeline.run(call, Reply())
    return caught.value


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_counts_and_its_tokens_are_those_used(house: House, stream: bool) -> None:
    limited(house, rpd=5, tpd=10_000, concurrency=3)
    options = {"include_usage": True} if stream else None
    call = house.call("hello", stream=stream, max_tokens=500, stream_options=options)
    reply = Reply()
    await house.pipeline.run(call, reply)
    total = (reply.frames()[-1] if stream else reply.json())["usage"]["total_tokens"]
    assert await used(house) == {"rpd": 1, "tpd": total, "concurrency": 0}
    told = trail_of(call)
    assert (told["x-ratelimit-limit-requests"], told["x-ratelimit-remaining-requests"]) == ("5", "4")
    assert told["x-ratelimit-remaining-tokens"] == str(10_000 - total)


async def test_a_limit_refuses_before_anything_is_asked(house: House) -> None:
    limited(house, rpd=1)
    await house.run("hello")
    call = house.call("hello")
    refusal = await refused(house, call)
    assert "Requests per day of this API key: 1 of 1 used" in refusal.message
    assert refusal.headers["x-ratelimit-remaining-requests"] == "0"
    assert call.trail.attempts == 0
    await house.run("hello", caller=house.other)


async def test_tokens_that_are_not_there_are_refused_before_the_model_is_asked(house: House) -> None:
    limited(house, tpd=500, rpd=9)
    call = house.call("endless")
    refusal = await refused(house, call)
    assert refusal.headers == {"x-should-retry": "false"}
    assert trail_of(call)["x-ratelimit-remaining-tokens"] == "500"
    assert await used(house) == {"tpd": 0, "rpd": 0}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["broken", "breaks"])
async def test_what_nothing_came_of_costs_no_tokens(house: House, model: str, stream: bool) -> None:
    limited(house, rpd=5, tpd=10_000)
    with suppress(ApiError):
        await house.run(model, stream=stream, max_tokens=500)
    found = await used(house, model)
    assert found["rpd"] == 1
    assert found["tpd"] == 0 if model == "broken" or not stream else 0 < found["tpd"] < 20


async def test_a_client_that_leaves_gives_its_place_back_and_pays_for_what_it_got(house: House) -> None:
    limited(house, tpd=10_000, concurrency=1)
    reply = Reply()
    task = asyncio.create_task(house.pipeline.run(house.call("endless", stream=True), reply))
    await reply.started.wait()
    assert (await used(house, "endless"))["tpd"] > 1000
    assert "Requests at the same time" in (await refused(house, house.call("hello"))).message
    task.cancel()
    await asyncio.wait({task})
    found = await used(house, "endless")
    assert found["concurrency"] == 0
    assert 0 < found["tpd"] < 100


async def test_a_repeat_costs_nothing_but_says_how_the_limits_are(house: House) -> None:
    limited(house, rpd=1, concurrency=1)
    first = await house.run("hello", key="once")
    call = house.call("hello", key="once")
    again = Reply()
    await house.pipeline.run(call, again)
    assert again.body == first.body
    assert trail_of(call)["x-ratelimit-remaining-requests"] == "0"
    assert await used(house) == {"rpd": 1, "concurrency": 0}


async def test_repeats_of_one_that_runs_take_no_place(house: House) -> None:
    limited(house, concurrency=1)
    replies = await asyncio.gather(*(house.run("slow", key="once") for _ in range(3)))
    assert len({reply.body for reply in replies}) == 1


@pytest.mark.parametrize("field", ["user", "safety_identifier"])
async def test_end_users_are_those_that_the_request_names(house: House, field: str) -> None:
    house.pipeline.limits.configure([Limit(kind="user", subject="*", rules=Rules(rpd=1))])
    fields: dict[str, Any] = {field: "bob"}
    await house.run("hello", **fields)
    await house.run("hello", **{field: "eve"})
    await refused(house, house.call("hello", **fields))


async def test_the_limit_of_a_model_holds_under_every_name(house: House) -> None:
    house.pipeline.limits.configure([Limit(kind="model", subject="hello", rules=Rules(rpd=1))])
    await house.run("hello-alias")
    await refused(house, house.call("hello", caller=house.other))
    await house.run("slow")


async def test_a_fallback_s_budget_cuts_a_whole_reply_too(house: House) -> None:
    """The model that was named has no budget; the one that answers in its place has."""
    pipeline = house.pipeline
    fallback = structs.replace(model("broken"), fallbacks=("wordy",))
    pipeline.attempts.catalog.configure([fallback, model("wordy")])
    pipeline.ledger.budgets.take([budget(id="bud_w", kind="model", subject="wordy", amount=600)])
    await house.store.budgets.add(budget(id="bud_w", kind="model", subject="wordy", amount=600), "test")
    reply = await house.run("broken")
    assert reply.json()["choices"][0]["finish_reason"] == "length"
    [row] = [row for row in await rows(house.store, "postings") if row.model == "wordy"]
    assert row.prompt_tokens + row.completion_tokens <= 600


async def test_a_long_end_user_is_known_by_a_digest(house: House) -> None:
    await house.run("hello", user="u" * 20_000)
    [row] = await rows(house.store, "postings")
    assert row.end_user.startswith("sha256:")
    assert len(row.end_user) < 100
