"""The one suite that every backend passes.

A backend's own tests subclass it and provide three fixtures: `backend`, `target`, and `spare`, a backend that the test
may close (by default that is `backend` itself, so a subclass whose backend is shared must make one). Texts are the
model's own affair: nothing here assumes what it says, only that it says the same again at temperature 0.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, ClassVar

import msgspec
import pytest

from chatport.backends.base import Backend
from chatport.targets import Bound, Feature, Target
from chatport.wire.chat import ChatRequest
from chatport.wire.errors import ApiError, ContextExceeded, Unavailable
from chatport.wire.stream import Envelope, StreamNormaliser
from support.stream_rules import check_same_answer, check_stream, joined

PROMPT = "Count from one to ten: one, two, three, four, five, six, seven, eight, nine, ten."

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
    for name in ("weather", "time")
]


def ask(text: str = PROMPT, **fields: Any) -> ChatRequest:
    """A small request that always gets the same answer."""
    whole = {
        "model": "m",
        "messages": [{"role": "user", "content": text}],
        "temperature": 0,
        "max_tokens": 12,
        **fields,
    }
    return msgspec.json.decode(msgspec.json.encode(whole), type=ChatRequest)


async def streamed(backend: Backend, target: Target, request: ChatRequest) -> list[dict[str, Any]]:
    """The stream as a client sees it, with its usage; held to the rules."""
    bound = await backend.bound(target, request)
    grammar = StreamNormaliser(
        Envelope(id="chatcmpl-1", created=1, model="m", system_fingerprint="fp_1"), request.choices, include_usage=True
    )
    sent = []
    async with backend.stream(target, request, bound) as chunks:
        async for chunk in chunks:
            sent += grammar.push(chunk)
    sent += grammar.finish()
    frames = [json.loads(msgspec.json.encode(chunk)) for chunk in sent]
    check_stream(
        frames,
        choices=request.choices,
        include_usage=True,
        logprobs=bool(request.logprobs),
        stop=request.stop_sequences,
        empty=request.output_limit == 0,
    )
    _check_usage(frames[-1]["usage"], request, bound)
    return frames


async def completed(backend: Backend, target: Target, request: ChatRequest) -> dict[str, Any]:
    """The answer that does not stream, with its usage checked."""
    bound = await backend.bound(target, request)
    reply: dict[str, Any] = json.loads(msgspec.json.encode(await backend.complete(target, request, bound)))
    assert [choice["index"] for choice in reply["choices"]] == list(range(request.choices))
    _check_usage(reply["usage"], request, bound)
    return reply


def _check_usage(usage: dict[str, Any], request: ChatRequest, bound: Bound) -> None:
    prompt, completion = usage["prompt_tokens"], usage["completion_tokens"]
    assert usage["total_tokens"] == prompt + completion
    assert prompt == bound.prompt_tokens if bound.counted_by == "exact" else prompt <= bound.prompt_tokens
    assert usage["prompt_tokens_details"]["cached_tokens"] <= prompt
    assert bound.output_tokens is None or completion <= bound.output_tokens
    assert request.output_limit is None or completion <= request.output_limit * request.choices


def content(reply: dict[str, Any]) -> str:
    text = reply["choices"][0]["message"]["content"]
    assert isinstance(text, str)
    return text


class BackendSuite:
    """Subclass it as `Test…`, and provide `backend`, `target` and, where the backend is shared, `spare`."""

    patience: ClassVar[float] = 5.0
    """Seconds within which what a request held must be free again."""

    @pytest.fixture
    def spare(self, backend: Backend) -> Backend:
        return backend

    def in_flight(self, backend: Backend) -> int:
        """How many requests the backend still works on; where it keeps no such number, none."""
        return getattr(backend, "in_flight", 0)

    async def becomes_idle(self, backend: Backend) -> None:
        async with asyncio.timeout(self.patience):
            while self.in_flight(backend):
                await asyncio.sleep(0.005)

    @pytest.mark.parametrize("limit", [0, 1, 12])
    @pytest.mark.parametrize("n", [1, 3])
    async def test_a_stream_joins_to_the_completion(self, backend: Backend, target: Target, limit: int, n: int) -> None:
        request = ask(max_tokens=limit, n=n)
        frames = await streamed(backend, target, request)
        reply = await completed(backend, target, request)
        check_same_answer(frames, reply)
        for count in ("prompt_tokens", "completion_tokens", "total_tokens"):
            assert frames[-1]["usage"][count] == reply["usage"][count]

    async def test_no_tokens_is_an_empty_answer(self, backend: Backend, target: Target) -> None:
        reply = await completed(backend, target, ask(max_tokens=0))
        assert (content(reply), reply["choices"][0]["finish_reason"]) == ("", "length")
        assert reply["usage"]["completion_tokens"] == 0

    async def test_one_token_is_one(self, backend: Backend, target: Target) -> None:
        assert (await completed(backend, target, ask(max_tokens=1)))["usage"]["completion_tokens"] == 1

    async def test_the_prompt_counts_once(self, backend: Backend, target: Target) -> None:
        one, three = [await completed(backend, target, ask(max_tokens=1, n=n)) for n in (1, 3)]
        assert one["usage"]["prompt_tokens"] == three["usage"]["prompt_tokens"]
        assert three["usage"]["completion_tokens"] == 3

    async def test_a_stop_sequence_ends_the_answer_and_is_not_in_it(self, backend: Backend, target: Target) -> None:
        text = content(await completed(backend, target, ask()))
        stop = text[len(text) // 2 :][:3]
        assert stop, "the model must say something here"
        request = ask(stop=[stop, "\x00never"])
        (choice,) = joined(await streamed(backend, target, request))
        assert choice["message"]["content"] == text[: text.index(stop)]
        assert choice["finish_reason"] == "stop"
        check_same_answer(await streamed(backend, target, request), await completed(backend, target, request))

    @pytest.mark.parametrize("top", [0, 3])
    async def test_logprobs_are_one_item_a_token(self, backend: Backend, target: Target, top: int) -> None:
        if Feature.LOGPROBS not in target.features:
            pytest.skip("this target gives no logprobs")
        request = ask(logprobs=True, top_logprobs=top)
        frames, reply = await streamed(backend, target, request), await completed(backend, target, request)
        check_same_answer(frames, reply)
        items = reply["choices"][0]["logprobs"]["content"]
        assert b"".join(bytes(item["bytes"]) for item in items) == content(reply).encode()
        assert len(items) in (reply["usage"]["completion_tokens"], reply["usage"]["completion_tokens"] - 1)
        for item in items:
            ranked = [other["logprob"] for other in item["top_logprobs"]]
            assert (len(ranked), ranked) == (top, sorted(ranked, reverse=True))

    @pytest.mark.parametrize("text", ["\x00", "🦙 你好 \u200d", "", " \n", "<|im_end|>"])
    async def test_any_text_is_taken(self, backend: Backend, target: Target, text: str) -> None:
        await streamed(backend, target, ask(text, max_tokens=3))

    async def test_requests_at_once_keep_apart(self, backend: Backend, target: Target) -> None:
        requests = [ask("word " * words, max_tokens=4, n=1 + words % 2) for words in (1, 5, 9, 13)]
        frames = await asyncio.gather(*(streamed(backend, target, request) for request in requests))
        prompts = [of_one[-1]["usage"]["prompt_tokens"] for of_one in frames]
        assert prompts == sorted(set(prompts)), "longer prompts cost more"

    async def test_a_prompt_beyond_the_window_is_refused(self, backend: Backend, target: Target) -> None:
        if target.context is None:
            pytest.skip("this target's window is not known")
        with pytest.raises(ContextExceeded) as refusal:
            await backend.bound(target, ask("word " * (target.context + 1)))
        assert refusal.value.param == "messages"

    async def test_a_tool_that_must_be_called_is_called(self, backend: Backend, target: Target) -> None:
        if Feature.TOOLS not in target.features:
            pytest.skip("this target calls no tools")
        request = ask(tools=TOOLS, tool_choice="required", max_tokens=200)
        reply = await completed(backend, target, request)
        check_same_answer(await streamed(backend, target, request), reply)
        for call in reply["choices"][0]["message"]["tool_calls"]:
            assert call["function"]["name"] in ("weather", "time")
            assert isinstance(json.loads(call["function"]["arguments"])["city"], str)

    async def test_leaving_early_frees_what_was_held(self, backend: Backend, target: Target) -> None:
        request = ask(n=2)
        bound = await backend.bound(target, request)
        async with backend.stream(target, request, bound) as chunks:
            async for _ in chunks:
                break
        await self.becomes_idle(backend)
        await completed(backend, target, request)

    @pytest.mark.parametrize("started", [False, True], ids=["before the first chunk", "after it"])
    async def test_cancelling_frees_what_was_held(self, backend: Backend, target: Target, started: bool) -> None:
        request = ask()
        bound = await backend.bound(target, request)
        first = asyncio.Event()

        async def read_and_stall() -> None:
            async with backend.stream(target, request, bound) as chunks:
                async for _ in chunks:
                    first.set()
                    await asyncio.Event().wait()

        reading = asyncio.create_task(read_and_stall())
        await (first.wait() if started else asyncio.sleep(0))
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await self.becomes_idle(backend)
        await completed(backend, target, request)

    async def test_it_is_ready_and_knows_its_models(self, backend: Backend, target: Target) -> None:
        await backend.probe(target)
        assert target.model in await backend.models(target)

    async def test_closing_twice_is_closing_once(self, spare: Backend, target: Target) -> None:
        await spare.close()
        await spare.close()
        with pytest.raises(Unavailable):
            await spare.probe(target)

    async def test_after_closing_it_answers_with_an_error(self, spare: Backend, target: Target) -> None:
        request = ask()
        bound = await spare.bound(target, request)
        await spare.close()
        with pytest.raises(ApiError):
            await spare.complete(target, request, bound)
