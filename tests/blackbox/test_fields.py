"""contract.md §4: every field of a request, what it takes and what it refuses, end to end.

One row a field. `good` values are answered; `bad` ones are refused with their code, naming the field, quoting the
value. A code of `...` stands where the contract leaves it open.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import EllipsisType, MappingProxyType
from typing import Any, NamedTuple

import pytest
from msgspec.structs import fields as struct_fields

from chatport.wire.chat import ChatRequest
from support.asking import HELLO, Api, Refusal

INT64 = 2**63


class Bad(NamedTuple):
    value: Any
    code: str | EllipsisType | None
    below: str = ""
    """The rest of the path to what is wrong, e.g. `[0].name`; `…`: any."""


NOTHING: Mapping[str, Any] = MappingProxyType({})


class Field(NamedTuple):
    good: Sequence[Any] = ()
    bad: Sequence[Bad] = ()
    beside: Mapping[str, Any] = NOTHING
    """What must be given with it."""
    nullable: bool = True


def number(low: float, high: float) -> Field:
    return Field(
        good=[low, high, (low + high) / 2],
        bad=[
            Bad(low - 0.01, "decimal_below_min_value"),
            Bad(high + 0.01, "decimal_above_max_value"),
            Bad(int(high) + 1, "decimal_above_max_value"),
            *(Bad(value, "invalid_type") for value in ["0.7", True, [1], {}]),
        ],
    )


def integer(low: int, high: int, **beside: Any) -> Field:
    return Field(
        good=[low, min(high, 5)],
        bad=[
            Bad(low - 1, "integer_below_min_value"),
            Bad(high + 1, "integer_above_max_value"),
            *(Bad(value, "invalid_type") for value in [1.5, "1", True, [1]]),
        ],
        beside=beside,
    )


def boolean(**beside: Any) -> Field:
    return Field([True, False], [Bad(value, "invalid_type") for value in ["true", 1, [], {}]], beside)


def enum(*words: str) -> Field:
    return Field(list(words), [Bad("nonsense", "invalid_value"), Bad(5, ...), Bad([words[0]], ...)])


def text(limit: int | None = None) -> Field:
    too_long = [Bad("x" * (limit + 1), "string_above_max_length")] if limit else []
    return Field(["anything", "", "中文"], [Bad(5, "invalid_type"), Bad([], "invalid_type"), *too_long])


LOOK_UP = {"type": "function", "function": {"name": "look_up"}}
FUNCTION = {"name": "look_up", "description": "Looks up", "parameters": {"type": "object", "properties": {}}}
MANY_PAIRS = {f"k{i}": "v" for i in range(17)}

FIELDS: dict[str, Field] = {
    "model": Field(["echo", "gpt-4", "library/poem:1"], [Bad(5, "invalid_type"), Bad("", ...)], nullable=False),
    "messages": Field(
        [HELLO],
        [Bad([], "empty_array"), Bad("hello", "invalid_type"), Bad({}, "invalid_type"), Bad(["hi"], ..., "[0]")],
        nullable=False,
    ),
    "temperature": number(0, 2),
    "top_p": number(0, 1),
    "n": integer(1, 128),
    "stream": Field([False], [Bad(value, "invalid_type") for value in ["true", 1, []]]),
    "stream_options": Field(
        [{"include_usage": True}, {"include_usage": False}, {}, {"include_obfuscation": False}],
        [Bad([], "invalid_type"), Bad({"include_usage": "yes"}, "invalid_type", ".include_usage")],
        {"stream": True},
    ),
    "stop": Field(
        ["x", ["x"], ["a", "b", "c", "d"], []],
        [Bad(5, ...), Bad(["a", "b", "c", "d", "e"], "array_above_max_length"), Bad(["a", 5], ..., "[1]")],
    ),
    "max_tokens": integer(0, INT64 - 1),
    "max_completion_tokens": integer(0, INT64 - 1),
    "presence_penalty": number(-2, 2),
    "frequency_penalty": number(-2, 2),
    "logit_bias": Field(
        [{}, {"50256": -100}, {"1": 100, "2": 0}],
        [
            Bad([], "invalid_type"),
            Bad({"hello": 1}, ..., "…"),
            Bad({"5": 101}, "integer_above_max_value", ".5"),
            Bad({"5": -101}, "integer_below_min_value", ".5"),
            Bad({"5": "1"}, "invalid_type", ".5"),
        ],
    ),
    "logprobs": boolean(),
    "top_logprobs": integer(0, 20, logprobs=True),
    "user": text(),
    "tools": Field(
        [[LOOK_UP], [{"type": "custom", "custom": {"name": "shell"}}]],
        [
            Bad([], "empty_array"),
            Bad({}, "invalid_type"),
            Bad([LOOK_UP] * 129, "array_above_max_length"),
            Bad([{"type": "robot"}], "invalid_value", "[0].type"),
        ],
    ),
    "tool_choice": Field(
        ["none", "auto", "required", {"type": "function", "function": {"name": "look_up"}}],
        [Bad("sometimes", ...), Bad(5, ...)],
        {"tools": [LOOK_UP]},
    ),
    "parallel_tool_calls": boolean(tools=[LOOK_UP]),
    "response_format": Field(
        [{"type": "text"}, {}],
        [Bad({"type": "xml"}, "invalid_value", ".type"), Bad("text", "invalid_type"), Bad([], "invalid_type")],
    ),
    "seed": integer(-INT64, INT64 - 1),
    "reasoning_effort": enum("none", "minimal", "low", "medium", "high", "xhigh", "max"),
    "verbosity": enum("low", "medium", "high"),
    "modalities": Field(
        [["text"]], [Bad([], "empty_array"), Bad(["smell"], "invalid_value", "[0]"), Bad("text", "invalid_type")]
    ),
    "audio": Field(
        [{"voice": "alloy", "format": "wav"}, {"voice": {"id": "v_1"}, "format": "pcm16"}],
        [
            Bad({"voice": "alloy"}, "missing_required_parameter", ".format"),
            Bad({"format": "wav"}, "missing_required_parameter", ".voice"),
            Bad({"voice": "alloy", "format": "midi"}, "invalid_value", ".format"),
        ],
    ),
    "prediction": Field(
        [{"type": "content", "content": "hi"}, {"type": "content", "content": [{"type": "text", "text": "hi"}]}],
        [
            Bad({"type": "guess", "content": "hi"}, "invalid_value", ".type"),
            Bad({"type": "content"}, "missing_required_parameter", ".content"),
            Bad({"type": "content", "content": []}, "empty_array", ".content"),
        ],
    ),
    "store": boolean(),
    "metadata": Field(
        [{}, {"k" * 64: "v" * 512}],
        [
            Bad(MANY_PAIRS, "object_above_max_properties"),
            Bad({"k": "v" * 513}, "string_above_max_length", ".k"),
            Bad({"k": 5}, "invalid_type", ".k"),
            Bad([], "invalid_type"),
            Bad({"k" * 65: "v"}, ..., "…"),
        ],
    ),
    "service_tier": enum("auto", "default", "flex", "scale", "priority", "fast"),
    "safety_identifier": text(64),
    "prompt_cache_key": text(),
    "prompt_cache_options": Field(
        [{}, {"mode": "implicit"}, {"mode": "explicit", "ttl": "30m"}],
        [Bad({"mode": "psychic"}, "invalid_value", ".mode"), Bad({"ttl": "31m"}, "invalid_value", ".ttl")],
    ),
    "prompt_cache_retention": enum("in_memory", "24h"),
    "web_search_options": Field(
        [
            {},
            {"search_context_size": "low"},
            {"user_location": {"type": "approximate", "approximate": {"country": "NZ", "city": "Nelson"}}},
        ],
        [
            Bad({"search_context_size": "huge"}, "invalid_value", ".search_context_size"),
            Bad({"user_location": {"type": "exact", "approximate": {}}}, "invalid_value", ".user_location.type"),
        ],
    ),
    "moderation": Field(
        [{"model": "m"}, {"model": "m", "policy": {"input": {"mode": "score"}, "output": {"mode": "block"}}}],
        [
            Bad({}, "missing_required_parameter", ".model"),
            Bad({"model": "m", "policy": {"input": {"mode": "shrug"}}}, "invalid_value", ".policy.input.mode"),
        ],
    ),
    "functions": Field(
        [[FUNCTION]],
        [
            Bad([], "empty_array"),
            Bad([{}], "missing_required_parameter", "[0].name"),
            Bad([FUNCTION] * 129, "array_above_max_length"),
        ],
    ),
    "function_call": Field(
        ["none", "auto", {"name": "look_up"}],
        [Bad("required", ...), Bad({}, "missing_required_parameter", ".name")],
        {"functions": [FUNCTION]},
    ),
}


def shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)[:40]


GOOD = [
    pytest.param(name, value, row.beside, id=f"{name}={shown(value)}")
    for name, row in FIELDS.items()
    for value in row.good
]
BAD = [
    pytest.param(name, bad, row.beside, id=f"{name}={shown(bad.value)}")
    for name, row in FIELDS.items()
    for bad in row.bad
]


def test_every_field_has_its_row() -> None:
    assert set(FIELDS) == {field.name for field in struct_fields(ChatRequest)}


@pytest.mark.parametrize(("name", "value", "beside"), GOOD)
def test_taken(api: Api, name: str, value: Any, beside: Mapping[str, Any]) -> None:
    """Answered, or refused by the model's own inability, never as invalid."""
    response = api.post({**beside, name: value})
    if response.status_code != 200:
        assert response.json()["error"]["code"] in {"unsupported_parameter", "unsupported_value"}, response.text
        assert name in {"audio", "modalities", "web_search_options", "moderation"}


@pytest.mark.parametrize(("name", "bad", "beside"), BAD)
def test_refused(api: Api, name: str, bad: Bad, beside: Mapping[str, Any]) -> None:
    refused = api.refusal(**{**beside, name: bad.value})
    assert (refused.status, refused.type) == (400, "invalid_request_error")
    assert refused.code == bad.code or isinstance(bad.code, EllipsisType)
    assert refused.param is not None
    assert refused.param.startswith(name) if bad.below == "…" else refused.param == name + bad.below


@pytest.mark.parametrize("name", [name for name, row in FIELDS.items() if row.nullable])
def test_null_is_not_given(api: Api, name: str) -> None:
    api.completion(**{name: None})


@pytest.mark.parametrize("name", ["model", "messages"])
def test_a_required_field_is_missed(api: Api, name: str) -> None:
    refused = api.refusal(**{name: ...})
    assert refused[:4] == (400, "invalid_request_error", "missing_required_parameter", name)


def test_a_field_nobody_knows_is_named(api: Api) -> None:
    refused = api.refusal(temprature=0.5)
    assert (refused.status, refused.type) == (400, "invalid_request_error")
    assert refused.code in {None, "unknown_parameter"}
    assert refused.param in {None, "temprature"}
    assert "temprature" in refused.message


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        pytest.param({"temperature": "0.7"}, ["temperature", '"0.7"', "number"], id="type"),
        pytest.param({"temperature": 2.5}, ["temperature", "2.5", "2"], id="range"),
        pytest.param({"verbosity": "loud"}, ["verbosity", "loud", "low", "medium", "high"], id="enum"),
        pytest.param({"messages": ...}, ["messages"], id="missing"),
        pytest.param({"stop": list("abcde")}, ["stop", "4", "5"], id="array"),
        pytest.param({"n": 129}, ["n", "128", "129"], id="integer"),
    ],
)
def test_the_message_says_what_was_given_and_what_is_allowed(
    api: Api, fields: dict[str, Any], words: list[str]
) -> None:
    message = api.refusal(**fields).message
    assert [word for word in words if word not in message] == []


def test_a_long_value_is_quoted_in_part(api: Api) -> None:
    refused: Refusal = api.refusal(verbosity="s" * 500)
    assert "s" * 30 in refused.message
    assert "s" * 65 not in refused.message


class TestWhatTheLimitsDo:
    """On the scripted model, whose token is a word: the counting is checked, not the sampling."""

    def test_max_tokens_cuts(self, api: Api) -> None:
        reply = api.completion(max_tokens=2)
        assert reply["choices"][0]["finish_reason"] == "length"
        assert reply["usage"]["completion_tokens"] == 2

    @pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
    def test_nothing_is_a_valid_limit(self, api: Api, name: str) -> None:
        reply = api.completion(**{name: 0})
        assert reply["choices"][0]["message"]["content"] == ""
        assert reply["choices"][0]["finish_reason"] == "length"
        assert reply["usage"]["completion_tokens"] == 0

    @pytest.mark.parametrize(("tokens", "completion_tokens"), [(1, 3), (3, 1)])
    def test_the_smaller_limit_wins(self, api: Api, tokens: int, completion_tokens: int) -> None:
        reply = api.completion(max_tokens=tokens, max_completion_tokens=completion_tokens)
        assert reply["usage"]["completion_tokens"] == 1

    def test_stop_is_not_returned(self, api: Api) -> None:
        reply = api.completion(stop=["three", "never"])
        assert reply["choices"][0]["message"]["content"] == "one two "
        assert reply["choices"][0]["finish_reason"] == "stop"

    def test_the_tier_used_is_reported(self, api: Api) -> None:
        assert api.completion(service_tier="auto")["service_tier"] == "default"

    def test_no_prediction_is_counted_that_was_not_used(self, api: Api) -> None:
        usage = api.completion(prediction={"type": "content", "content": "one"})["usage"]
        details = usage["completion_tokens_details"]
        assert details["accepted_prediction_tokens"] == details["rejected_prediction_tokens"] == 0

    def test_metadata_needs_no_store(self, api: Api) -> None:
        api.completion(metadata={"a": "b"})
