"""contract.md §10: what is true of every stream, over a real port.

`Api.stream` holds each stream to the rules in `support/stream_rules.py`; here are the requests that reach each rule.
"""

from __future__ import annotations

from typing import Any

import pytest

from support.asking import Api, refusal
from support.stream_rules import check_same_answer

TOOL = {"type": "function", "function": {"name": "look_up"}}

REQUESTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "poem": {"model": "poem"},
    "choices": {"n": 3},
    "logprobs": {"logprobs": True},
    "top-logprobs": {"logprobs": True, "top_logprobs": 3},
    "stop": {"stop": ["four"]},
    "length": {"max_tokens": 2},
    "nothing": {"max_tokens": 0},
    "call": {"tools": [TOOL], "tool_choice": "required"},
    "custom-call": {"tools": [{"type": "custom", "custom": {"name": "shell"}}], "tool_choice": "required"},
    "function": {"functions": [{"name": "f"}], "function_call": {"name": "f"}},
    "json": {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}},
}


@pytest.mark.parametrize("fields", REQUESTS.values(), ids=REQUESTS)
def test_joined_it_is_the_reply(api: Api, fields: dict[str, Any]) -> None:
    check_same_answer(api.stream(**fields).frames, api.completion(**fields))


@pytest.mark.parametrize("fields", REQUESTS.values(), ids=REQUESTS)
def test_usage_is_the_replys(api: Api, fields: dict[str, Any]) -> None:
    streamed = api.stream(**fields, stream_options={"include_usage": True})
    assert streamed.usage == api.completion(**fields)["usage"]


@pytest.mark.parametrize("options", [None, {}, {"include_usage": False}, {"include_usage": None}])
def test_no_usage_unless_asked(api: Api, options: dict[str, Any] | None) -> None:
    assert api.stream(stream_options=options).usage is None


def test_the_id_is_the_answers_own(api: Api) -> None:
    ids = {api.stream().frames[0]["id"] for _ in range(3)}
    assert len(ids) == 3
    assert all(each.startswith("chatcmpl-") for each in ids)


@pytest.mark.parametrize("include", [None, False])
def test_no_obfuscation_unless_asked(api: Api, include: bool | None) -> None:
    options = {} if include is None else {"stream_options": {"include_obfuscation": include}}
    assert not any("obfuscation" in frame for frame in api.stream(**options).frames)


def test_obfuscation_when_asked(api: Api) -> None:
    frames = api.stream(stream_options={"include_obfuscation": True}).frames
    assert any(frame.get("obfuscation") for frame in frames)


@pytest.mark.parametrize(
    ("fields", "status"),
    [({"temperature": 9}, 400), ({"model": "nobody"}, 404), ({"model": "busy"}, 429), ({"model": "down"}, 503)],
)
def test_an_error_before_the_first_byte_is_json(api: Api, fields: dict[str, Any], status: int) -> None:
    assert refusal(api.post({**fields, "stream": True})).status == status


def test_nothing_is_streamed_when_nothing_may_be_said(api: Api) -> None:
    frames = api.stream(max_tokens=0).frames
    assert [frame["choices"][0]["delta"] for frame in frames] == [{"role": "assistant", "content": ""}, {}]
    assert frames[-1]["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize("stop", ["two", "o t", "ne two three f", ["zzz", " five"]])
def test_stop_never_leaks(api: Api, stop: Any) -> None:
    streamed = api.stream(stop=stop)
    stops = [stop] if isinstance(stop, str) else stop
    assert not [text for text in stops if text in streamed.content]
    assert streamed.choices[0]["finish_reason"] == "stop"


def test_characters_are_whole_in_every_frame(api: Api) -> None:
    streamed = api.stream(model="poem")
    assert streamed.content == "春天 came, and \0🌱!\n"
    assert not any("\ufffd" in str(frame) for frame in streamed.frames)


def test_logprobs_travel_with_their_text(api: Api) -> None:
    frames = api.stream(logprobs=True).frames
    said = [choice for frame in frames for choice in frame["choices"] if choice["delta"].get("content")]
    assert said
    assert all(choice["logprobs"]["content"] for choice in said)


def test_the_media_type_has_a_charset_or_none(api: Api) -> None:
    response = api.post({"stream": True})
    assert response.headers["content-type"] in {"text/event-stream", "text/event-stream; charset=utf-8"}
