"""The backend against real upstreams: the family's suite on Chatport itself, everything else on one that misbehaves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from msgspec import structs

from chatport.backends.base import Backend
from chatport.backends.http.connection import Timeouts
from chatport.backends.http.dial import Origin
from chatport.backends.http.pool import PoolLimits, Pools
from chatport.backends.openai import OpenAIBackend, OpenAISettings, ReadLimits
from chatport.backends.openai.request import upstream_body
from chatport.providers import Quirk
from chatport.targets import Target
from chatport.telemetry import REQUEST_ID
from chatport.wire.chat import ChatRequest
from chatport.wire.decode import as_given
from chatport.wire.errors import ApiError, InternalError, InvalidRequest, RateLimited, Unavailable, UpstreamFailed
from support.backend_suite import BackendSuite, ask, completed, content, streamed
from support.serving import Server
from support.upstreams import (
    CHUNKED_END,
    STREAM_HEAD,
    Asked,
    Behaviour,
    Upstream,
    Wire,
    answering,
    chunked,
    event,
    then_closing,
    then_hanging,
    then_resetting,
    upstream,
    whole,
)

KEY = "sk-upstream-0123456789"
TARGET = Target(id="far", backend="far", model="far-model-7b")
SOON = Timeouts(connect=2, send=2, first_byte=0.5, between=0.5, total=3)


def opened(url: str, pools: Pools, **settings: Any) -> OpenAIBackend:
    port = int(url.rpartition(":")[2].partition("/")[0])
    pool = pools.to(Origin(scheme="http", host="127.0.0.1", port=port))
    return OpenAIBackend(OpenAISettings(**{"base_url": url, "api_key": KEY, "timeouts": SOON, **settings}), pool)


@pytest.fixture
async def pools() -> AsyncIterator[Pools]:
    pools = Pools(PoolLimits(sweep_seconds=0.02))
    yield pools
    pools.close()


class TestChatportBehindChatport(BackendSuite):
    """The suite, with a whole Chatport (scripted) as the upstream."""

    @pytest.fixture
    def backend(self, scripted_server: Server, pools: Pools) -> Backend:
        return opened(f"{scripted_server.url}/v1", pools, api_key=scripted_server.key, timeouts=Timeouts())

    @pytest.fixture
    def target(self) -> Target:
        return Target(id="t", backend="b", model="poem")


# --- What is sent ----------------------------------------------------------------------------------------------------

REPLY = {
    "id": "x",
    "object": "chat.completion",
    "created": 1,
    "model": "far-model-7b",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
}


def said(value: Any) -> bytes:
    return whole(msgspec.json.encode(value))


async def sent(pools: Pools, request: ChatRequest, **settings: Any) -> Asked:
    """What an upstream gets for this request."""
    async with upstream(answering(said(REPLY))) as server:
        backend = opened(server.url, pools, **settings)
        await backend.complete(TARGET, request, await backend.bound(TARGET, request))
        return server.asked[0]


async def test_what_the_client_gave_goes_out_under_our_key(pools: Pools) -> None:
    token = REQUEST_ID.set("req_1")
    asked = await sent(pools, ask("hi", user="u", seed=5, temperature=0.5, top_p=None))
    REQUEST_ID.reset(token)
    assert asked.line == "POST /v1/chat/completions HTTP/1.1"
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert asked.headers["x-request-id"] == "req_1"
    assert asked.headers["host"].startswith("127.0.0.1:")
    assert asked.json == {
        "model": "far-model-7b",
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 12,
        "temperature": 0.5,
        "seed": 5,
        "user": "u",
    }


async def test_a_stream_is_asked_for_whether_or_not_the_client_wants_one(pools: Pools) -> None:
    given = as_given(ask("hi"), b'{"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": false}')
    async with upstream(answering(said(REPLY))) as server:
        backend = opened(server.url, pools)
        for request in (ask("hi"), given):
            async with backend.stream(TARGET, request, await backend.bound(TARGET, request)) as chunks:
                assert [chunk async for chunk in chunks]
        assert [(asked.json["stream"], asked.json["stream_options"]) for asked in server.asked] == [
            (True, {"include_usage": True})
        ] * 2


def test_the_model_is_named_in_our_spelling_whatever_else_goes_as_it_was_given() -> None:
    spelt = "".join(f"\\u{ord(letter):04x}" for letter in TARGET.model)
    given = as_given(structs.replace(ask("hi"), model=TARGET.model), b'{"model": "%b", "x": 1.50}' % spelt.encode())
    assert upstream_body(given, TARGET.model, frozenset()) == b'{"model":"%b","x":1.50}' % TARGET.model.encode()


async def test_a_limit_of_ours_wins_over_the_field_as_it_was_given(pools: Pools) -> None:
    body = b'{"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 900, "top_k": 4}'
    given = as_given(ask("hi"), body)
    asked = await sent(pools, structs.replace(given, max_completion_tokens=7, max_tokens=None))
    assert (asked.json["max_completion_tokens"], asked.json["top_k"]) == (7, 4)
    assert "max_tokens" not in asked.json


async def test_headers_and_fields_of_the_target_win(pools: Pools) -> None:
    settings = {"headers": {"X-Title": "t", "User-Agent": "me"}, "body": {"temperature": 1, "top_k": 4}}
    asked = await sent(pools, ask("hi"), **settings)
    assert (asked.headers["x-title"], asked.headers["user-agent"]) == ("t", "me")
    assert (asked.json["temperature"], asked.json["top_k"]) == (1, 4)


async def test_without_a_key_there_is_none(pools: Pools) -> None:
    assert "authorization" not in (await sent(pools, ask("hi"), api_key=None)).headers


def test_a_header_that_would_end_its_line_is_refused() -> None:
    with pytest.raises(ValueError, match="control character"):
        opened("http://127.0.0.1:1/v1", Pools(), headers={"x": "a\r\nb: c"})


def test_the_key_is_in_no_representation() -> None:
    assert KEY not in repr(OpenAISettings(base_url="http://x/v1", api_key=KEY, headers={"a": KEY}))


# --- Answers ---------------------------------------------------------------------------------------------------------


async def answer(pools: Pools, *behaviours: Behaviour, **settings: Any) -> dict[str, Any]:
    async with upstream(*behaviours) as server:
        return await completed(opened(server.url, pools, **settings), TARGET, ask("hi"))


async def frames(pools: Pools, *behaviours: Behaviour, request: ChatRequest | None = None, **settings: Any) -> Any:
    async with upstream(*behaviours) as server:
        backend = opened(server.url, pools, **settings)
        try:
            return await streamed(backend, TARGET, request or ask("hi", stream=True))
        finally:
            assert backend.in_flight == 0


def piece(content: str | None = None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    delta = {} if content is None else {"content": content}
    return {"id": "x", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}


USED = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}}
STREAM = (STREAM_HEAD, event(piece("Hel")), event(piece("lo")), event(piece(None, "stop")))


def text(found: list[dict[str, Any]]) -> str:
    return "".join(choice["delta"].get("content") or "" for frame in found for choice in frame["choices"])


async def test_an_answer(pools: Pools) -> None:
    assert content(await answer(pools, answering(said(REPLY)))) == "Hi"


async def test_a_stream(pools: Pools) -> None:
    async with upstream(answering(*STREAM, event(USED), event(b"[DONE]"), CHUNKED_END)) as server:
        backend = opened(server.url, pools)
        for _ in range(2):
            found = await streamed(backend, TARGET, ask("hi", stream=True))
            assert text(found) == "Hello"
            assert found[-1]["usage"]["completion_tokens"] == 2
            await asyncio.sleep(0.03)
        assert server.connections == 1, "the connection is kept, though its end comes behind [DONE]"
        assert server.asked[0].json["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50])
async def test_a_stream_in_pieces_of_any_size(pools: Pools, size: int) -> None:
    data = b"".join((event(piece("Hé")), event(piece("lló 春")), event(piece(None, "stop")), event(USED), CHUNKED_END))
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    assert text(await frames(pools, answering(STREAM_HEAD, *pieces))) == "Hélló 春"


@pytest.mark.parametrize(
    "end",
    [
        answering(*STREAM, CHUNKED_END),
        then_closing(*STREAM),
        then_resetting(*STREAM),
        answering(*STREAM, event(b"[DONE]"), event(piece("never")), CHUNKED_END),
    ],
    ids=["no [DONE]", "closed", "reset", "more behind [DONE]"],
)
async def test_after_its_finish_a_stream_is_complete_and_its_usage_estimated(pools: Pools, end: Behaviour) -> None:
    found = await frames(pools, end)
    assert text(found) == "Hello"
    assert found[-1]["usage"]["completion_tokens"] > 0
    assert found[-1]["usage"]["prompt_tokens"] > 0


async def test_after_its_finish_a_silent_stream_is_waited_for_a_moment(
    pools: Pools, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chatport.backends.openai.pouring.AFTER_FINISH", 0.05)
    async with asyncio.timeout(1):
        assert text(await frames(pools, then_hanging(*STREAM), timeouts=Timeouts())) == "Hello"


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [
        (then_hanging(), Unavailable),
        (then_hanging(STREAM_HEAD), Unavailable),
        (then_hanging(STREAM_HEAD, event(piece("Hel"))), Unavailable),
        (then_closing(STREAM_HEAD, event(piece("Hel"))), UpstreamFailed),
        (then_resetting(STREAM_HEAD, event(piece("Hel"))), UpstreamFailed),
        (answering(STREAM_HEAD, event(piece("Hel")), CHUNKED_END), InternalError),
        (answering(STREAM_HEAD, event(piece("Hel")), event(b"[DONE]"), CHUNKED_END), InternalError),
        (answering(STREAM_HEAD, event(b"{nonsense"), CHUNKED_END), UpstreamFailed),
        (answering(STREAM_HEAD, event(b"\xff\xfe"), CHUNKED_END), UpstreamFailed),
        (answering(STREAM_HEAD, event(b"[1, 2]"), CHUNKED_END), UpstreamFailed),
        (answering(STREAM_HEAD, event({"error": {"message": "gone", "code": 502}}), CHUNKED_END), Unavailable),
        (answering(STREAM_HEAD, event({"error": "gone"}), CHUNKED_END), UpstreamFailed),
        (answering(STREAM_HEAD, event(piece(None, "error")), CHUNKED_END), UpstreamFailed),
        (answering(whole(b"<html>", content_type="text/html")), InternalError),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else None,
)
async def test_a_stream_that_breaks_is_an_error(pools: Pools, behaviour: Behaviour, error: type[ApiError]) -> None:
    with pytest.raises(error) as caught:
        await frames(pools, behaviour)
    assert "127.0.0.1" not in str(caught.value)


async def test_a_frame_over_the_limit(pools: Pools) -> None:
    long = (STREAM_HEAD, *(chunked(b"data: " + b"x" * 600) for _ in range(2)))
    with pytest.raises(UpstreamFailed, match="more than 1000 bytes"):
        await frames(pools, then_hanging(*long), limits=ReadLimits(frame=1000))


async def test_a_stream_over_the_limit(pools: Pools) -> None:
    async def endless(wire: Wire, asked: Asked) -> None:
        await wire.send(STREAM_HEAD)
        while not wire.writer.is_closing():
            await wire.send(event(piece("x" * 100)))

    with pytest.raises(UpstreamFailed, match="does not stop"):
        await frames(pools, endless, limits=ReadLimits(stream=10_000))


async def test_a_reply_over_the_limit(pools: Pools) -> None:
    with pytest.raises(UpstreamFailed):
        await answer(pools, answering(said(REPLY)), limits=ReadLimits(reply=100))


async def test_an_upstream_that_does_not_stream_after_all(pools: Pools) -> None:
    assert text(await frames(pools, answering(said(REPLY)))) == "Hi"


async def test_reasoning_is_told_in_one_word(pools: Pools) -> None:
    thoughts = [{"reasoning": "hm"}, {"reasoning_content": "m", "content": None}, {"content": "ok", "reasoning": None}]
    pieces = [event({"choices": [{"index": 0, "delta": thought}]}) for thought in thoughts]
    found = await frames(pools, answering(STREAM_HEAD, *pieces, event(piece(None, "stop")), event(USED), CHUNKED_END))
    reasoned = "".join(c["delta"].get("reasoning_content", "") for frame in found for c in frame["choices"])
    assert (reasoned, text(found)) == ("hmm", "ok")


# --- Errors ----------------------------------------------------------------------------------------------------------

TOLD = {"error": {"message": f"far-model-7b at https://far.test/v1 with {KEY}: no n", "param": "n", "code": "bad_n"}}


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("400 Bad Request", InvalidRequest),
        ("422 Unprocessable Entity", InvalidRequest),
        ("401 Unauthorized", InternalError),
        ("402 Payment Required", Unavailable),
        ("403 Forbidden", InternalError),
        ("404 Not Found", InternalError),
        ("408 Request Timeout", Unavailable),
        ("409 Conflict", Unavailable),
        ("418 Teapot", InternalError),
        ("429 Too Many Requests", RateLimited),
        ("301 Moved Permanently", InternalError),
        ("500 Internal Server Error", UpstreamFailed),
        ("502 Bad Gateway", Unavailable),
        ("503 Service Unavailable", Unavailable),
        ("504 Gateway Timeout", Unavailable),
        ("529 Overloaded", Unavailable),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_status_becomes_the_contracts(
    pools: Pools, status: str, error: type[ApiError], stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    behaviour = answering(whole(json.dumps(TOLD).encode(), status, "Retry-After: 7"))
    with pytest.raises(error) as caught:
        await (frames(pools, behaviour) if stream else answer(pools, behaviour))
    assert type(caught.value) is error
    told = f"{caught.value.body()!r} {caplog.text}"
    assert not [secret for secret in (KEY, "far-model-7b", "far.test", "127.0.0.1") if secret in told]
    waits = status[:3] in {"408", "409", "429", "502", "503", "504", "529"}
    assert caught.value.headers.get("retry-after") == ("7" if waits else None)
    if error is InvalidRequest:
        assert (caught.value.param, caught.value.code) == ("n", "bad_n")
        assert "no n" in caught.value.message


async def test_our_exhausted_account_is_not_the_clients(pools: Pools) -> None:
    broke = {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}
    with pytest.raises(Unavailable):
        await answer(pools, answering(whole(json.dumps(broke).encode(), "429 Too Many Requests")))


@pytest.mark.parametrize(
    "body",
    [
        {
            "error": {
                "message": "This model's maximum context length is 8192 tokens.",
                "code": "context_length_exceeded",
            }
        },
        {"object": "error", "message": "maximum context length is 4096 tokens, however you requested 9", "code": 400},
        {"error": "the request exceeds the available context size"},
    ],
)
async def test_a_prompt_that_is_too_long_is_told_as_one(pools: Pools, body: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await answer(pools, answering(whole(json.dumps(body).encode(), "400 Bad Request")))
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "messages")


@pytest.mark.parametrize(
    ("body", "message", "param"),
    [
        (b'{"detail":[{"loc":["body","n"],"msg":"must be 1"}]}', "must be 1", "n"),
        (b'{"object":"error","message":{"detail":[{"loc":["body","n"],"msg":"not permitted"}]}}', "not permitted", "n"),
        (b'{"message":"plain"}', "plain", None),
        (b'{"error":"bare"}', "bare", None),
        (b'"string"', "string", None),
        (b"<html>", None, None),
        (b"", None, None),
        (b"[]", None, None),
        (b"\xff", None, None),
        (b'{"error":{"message":5,"param":"a b","code":[]}}', None, None),
    ],
)
async def test_whatever_an_error_looks_like(pools: Pools, body: bytes, message: str | None, param: str | None) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await answer(pools, answering(whole(body, "400 Bad Request")))
    assert caught.value.message == (message or "The model's upstream refused the request as invalid.")
    assert caught.value.param == param


async def test_an_error_with_status_200(pools: Pools) -> None:
    for reply in ({"error": {"message": "x"}}, {"base_resp": {"status_code": 1004, "status_msg": "x"}}, {}):
        with pytest.raises(InternalError):
            await answer(pools, answering(said(reply)))


async def test_nobody_there_is_unavailable(pools: Pools) -> None:
    async with upstream(answering(b"")) as server:
        url = server.url
    backend = opened(url, pools)
    with pytest.raises(Unavailable) as caught:
        await completed(backend, TARGET, ask("hi"))
    assert "127.0.0.1" not in str(caught.value)


# --- The rest --------------------------------------------------------------------------------------------------------


async def test_its_models(pools: Pools) -> None:
    async with upstream(answering(said({"object": "list", "data": [{"id": "a"}, {"id": "b", "more": 1}]}))) as server:
        backend = opened(server.url, pools)
        assert await backend.models(TARGET) == ["a", "b"]
        assert server.asked[0].line == "GET /v1/models HTTP/1.1"
        assert server.asked[0].body == b""


@pytest.mark.parametrize("reply", [whole(b"[]"), whole(b"", "401 Unauthorized"), whole(b"", "503 Down")])
async def test_a_listing_that_is_none(pools: Pools, reply: bytes) -> None:
    async with upstream(answering(reply)) as server:
        with pytest.raises(ApiError):
            await opened(server.url, pools).probe(TARGET)


@pytest.mark.parametrize("phase", ["first byte", "stream"])
async def test_leaving_reaches_the_upstream_at_once(pools: Pools, phase: str) -> None:
    behaviour = then_hanging() if phase == "first byte" else then_hanging(STREAM_HEAD, event(piece("Hel")))
    server: Upstream
    async with upstream(behaviour) as server:
        backend = opened(server.url, pools, timeouts=Timeouts())
        reading = asyncio.create_task(streamed(backend, TARGET, ask("hi", stream=True)))
        while not server.asked:
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.05)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await server.all_gone(within=0.1)
        assert backend.in_flight == 0


async def test_quirks(pools: Pools) -> None:
    old = frozenset({Quirk.OLD_MAX_TOKENS, Quirk.NO_STREAM_OPTIONS})
    asked = await sent(pools, ask("hi", max_tokens=None, max_completion_tokens=9), quirks=old)
    assert asked.json["max_tokens"] == 9
    assert "max_completion_tokens" not in asked.json
