"""contract.md §13: what a user of the official Python SDK sees. No retries unless said."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam
from pydantic import BaseModel

from support.asking import Api
from support.serving import Server

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "one two three four five"}]


@pytest.fixture
async def asdk(scripted_server: Server) -> AsyncIterator[openai.AsyncOpenAI]:
    direct = openai.DefaultAsyncHttpxClient(trust_env=False)
    async with openai.AsyncOpenAI(
        base_url=f"{scripted_server.url}/v1", api_key=scripted_server.key, max_retries=0, http_client=direct
    ) as client:
        yield client


def test_plain(sdk: openai.OpenAI) -> None:
    reply = sdk.chat.completions.create(model="gpt-4", messages=HELLO)
    assert reply.choices[0].message.content == "one two three four five"
    assert reply.usage is not None
    assert reply._request_id is not None
    assert reply._request_id.startswith("req_")


def test_streamed(sdk: openai.OpenAI) -> None:
    with sdk.chat.completions.create(model="gpt-4", messages=HELLO, stream=True) as chunks:
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == "one two three four five"


async def test_async(asdk: openai.AsyncOpenAI) -> None:
    """Plain and streamed over one connection: the client drains a stream before it uses the connection again."""
    for _ in range(3):
        chunks = await asdk.chat.completions.create(model="poem", messages=HELLO, stream=True)
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])
        whole = await asdk.chat.completions.create(model="poem", messages=HELLO)
        assert text == whole.choices[0].message.content


async def test_many_at_once_do_not_mix(asdk: openai.AsyncOpenAI) -> None:
    async def ask(number: int) -> str | None:
        messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": f"number {number}"}]
        return (await asdk.chat.completions.create(model="echo", messages=messages)).choices[0].message.content

    assert await asyncio.gather(*map(ask, range(50))) == [f"number {number}" for number in range(50)]


ERRORS: dict[str, tuple[dict[str, Any], type[openai.APIStatusError], str, str | None]] = {
    "400": ({"temperature": 9}, openai.BadRequestError, "invalid_request_error", "temperature"),
    "404": ({"model": "nobody"}, openai.NotFoundError, "not_found", "model"),
    "429": ({"model": "busy"}, openai.RateLimitError, "rate_limit_exceeded", None),
    "500": ({"model": "broken"}, openai.InternalServerError, "api_error", None),
    "503": ({"model": "down"}, openai.InternalServerError, "service_unavailable", None),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("fields", "kind", "type_", "param"), ERRORS.values(), ids=ERRORS)
def test_error_classes(
    sdk: openai.OpenAI, stream: bool, fields: dict[str, Any], kind: type[openai.APIStatusError], type_: str, param: str
) -> None:
    with pytest.raises(kind) as raised:
        sdk.chat.completions.create(**{"model": "echo", "messages": HELLO, "stream": stream, **fields})
    assert type(raised.value) is kind
    assert (raised.value.type, raised.value.param) == (type_, param)
    assert raised.value.request_id is not None
    assert raised.value.message


def test_a_wrong_key(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.AuthenticationError) as raised:
        sdk.with_options(api_key="sk-wrong-wrong-wrong-wrong").models.list()
    assert (raised.value.code, raised.value.param) == ("invalid_api_key", "authorization")


def test_a_key_for_other_models(scripted_server: Server, sdk: openai.OpenAI) -> None:
    poet = sdk.with_options(api_key=scripted_server.new_key("--name", "poet", "--models", "poem").key)
    poet.chat.completions.create(model="poem", messages=HELLO)
    with pytest.raises(openai.PermissionDeniedError) as raised:
        poet.chat.completions.create(model="echo", messages=HELLO)
    assert (raised.value.type, raised.value.code) == ("access_denied", "access_denied")


@pytest.mark.parametrize(("model", "tries"), [("busy", 2), ("down", 2), ("broken", 2)])
def test_what_may_pass_is_retried(sdk: openai.OpenAI, scripted_server: Server, model: str, tries: int) -> None:
    seen: list[int] = []
    client = sdk.with_options(max_retries=tries - 1)
    client._client.event_hooks["response"].append(lambda response: seen.append(response.status_code))
    try:
        with pytest.raises(openai.APIStatusError):
            client.chat.completions.create(model=model, messages=HELLO)
    finally:
        client._client.event_hooks["response"].clear()
    assert len(seen) == tries


def test_what_cannot_pass_is_not_retried(sdk: openai.OpenAI) -> None:
    seen: list[int] = []
    client = sdk.with_options(max_retries=2)
    client._client.event_hooks["response"].append(lambda response: seen.append(response.status_code))
    try:
        with pytest.raises(openai.BadRequestError):
            client.chat.completions.create(model="echo", messages=HELLO, temperature=9)
    finally:
        client._client.event_hooks["response"].clear()
    assert seen == [400]


def test_a_timeout_is_the_clients_own(sdk: openai.OpenAI, api: Api) -> None:
    with pytest.raises(openai.APITimeoutError):
        sdk.with_options(timeout=0.2).chat.completions.create(model="slow", messages=HELLO)
    api.completion()


def test_no_server_no_answer(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.APIConnectionError):
        sdk.with_options(base_url="http://127.0.0.1:9/v1").models.list()


class Answer(BaseModel):
    text: str


class TestHelpers:
    """`.parse()` and `.stream()` ask for a strict schema and read the reply into types."""

    def test_parse(self, sdk: openai.OpenAI) -> None:
        reply = sdk.chat.completions.parse(model="echo", messages=HELLO, response_format=Answer)
        assert isinstance(reply.choices[0].message.parsed, Answer)

    def test_parse_cut_short(self, sdk: openai.OpenAI) -> None:
        with pytest.raises(openai.LengthFinishReasonError):
            sdk.chat.completions.parse(model="echo", messages=HELLO, response_format=Answer, max_tokens=1)

    def test_stream(self, sdk: openai.OpenAI) -> None:
        with sdk.chat.completions.stream(model="echo", messages=HELLO) as events:
            kinds = {event.type for event in events}
            final = events.get_final_completion()
        assert {"chunk", "content.delta", "content.done"} <= kinds
        assert final.choices[0].message.content == "one two three four five"

    def test_stream_of_calls(self, sdk: openai.OpenAI) -> None:
        tool = openai.pydantic_function_tool(Answer)
        with sdk.chat.completions.stream(model="echo", messages=HELLO, tools=[tool], tool_choice="required") as events:
            kinds = [event.type for event in events]
            final = events.get_final_completion()
        assert "tool_calls.function.arguments.done" in kinds
        calls = final.choices[0].message.tool_calls
        assert calls is not None
        assert isinstance(calls[0].function.parsed_arguments, Answer)

    def test_stream_cut_short(self, sdk: openai.OpenAI) -> None:
        with (
            pytest.raises(openai.LengthFinishReasonError),
            sdk.chat.completions.stream(model="echo", messages=HELLO, response_format=Answer, max_tokens=1) as events,
        ):
            events.until_done()
