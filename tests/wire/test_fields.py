"""The cold path alone: each kind of fault, with its code, its param and a message that says what is allowed."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from chatport.wire.chat import ChatRequest
from chatport.wire.errors import InvalidRequest
from chatport.wire.fields import CHECKS, EXPECTED, KINDS, given, validate

USER: dict[str, Any] = {"role": "user", "content": "hi"}


def fault(**fields: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        validate(ChatRequest, {"model": "m", "messages": [USER], **fields})
    return caught.value


def message_fault(message: dict[str, Any]) -> InvalidRequest:
    return fault(messages=[USER, message])


def part_fault(part: dict[str, Any]) -> InvalidRequest:
    return message_fault({"role": "user", "content": [part]})


def function(**fields: Any) -> dict[str, Any]:
    return {"type": "function", "function": fields}


LONG = "x" * 100

FIELDS: list[tuple[dict[str, Any], str, str]] = [
    ({"model": None}, "invalid_type", "model"),
    ({"model": 4}, "invalid_type", "model"),
    ({"model": ""}, "invalid_value", "model"),
    ({"messages": None}, "invalid_type", "messages"),
    ({"messages": {}}, "invalid_type", "messages"),
    ({"messages": []}, "empty_array", "messages"),
    ({"messages": ["hi"]}, "invalid_type", "messages[0]"),
    ({"temperature": "0.7"}, "invalid_type", "temperature"),
    ({"temperature": True}, "invalid_type", "temperature"),
    ({"temperature": [1]}, "invalid_type", "temperature"),
    ({"temperature": 2.1}, "decimal_above_max_value", "temperature"),
    ({"temperature": 3}, "decimal_above_max_value", "temperature"),
    ({"temperature": -0.1}, "decimal_below_min_value", "temperature"),
    ({"top_p": 1.1}, "decimal_above_max_value", "top_p"),
    ({"top_p": -1}, "decimal_below_min_value", "top_p"),
    ({"n": 0}, "integer_below_min_value", "n"),
    ({"n": 129}, "integer_above_max_value", "n"),
    ({"n": 1.5}, "invalid_type", "n"),
    ({"n": 1.0}, "invalid_type", "n"),
    ({"n": True}, "invalid_type", "n"),
    ({"stream": "true"}, "invalid_type", "stream"),
    ({"stream": 1}, "invalid_type", "stream"),
    ({"stream_options": []}, "invalid_type", "stream_options"),
    ({"stream_options": {"include_usage": 1}}, "invalid_type", "stream_options.include_usage"),
    ({"stop": 3}, "invalid_type", "stop"),
    ({"stop": [3]}, "invalid_type", "stop[0]"),
    ({"stop": list("abcde")}, "array_above_max_length", "stop"),
    ({"max_tokens": -1}, "integer_below_min_value", "max_tokens"),
    ({"max_tokens": 2**63}, "integer_above_max_value", "max_tokens"),
    ({"max_completion_tokens": -1}, "integer_below_min_value", "max_completion_tokens"),
    ({"max_completion_tokens": 1.5}, "invalid_type", "max_completion_tokens"),
    ({"presence_penalty": 2.01}, "decimal_above_max_value", "presence_penalty"),
    ({"frequency_penalty": -2.01}, "decimal_below_min_value", "frequency_penalty"),
    ({"logit_bias": {"token": 1}}, "invalid_value", "logit_bias"),
    ({"logit_bias": {"1\n": 1}}, "invalid_value", "logit_bias"),
    ({"logit_bias": {"1": 101}}, "integer_above_max_value", "logit_bias.1"),
    ({"logit_bias": {"1": -101}}, "integer_below_min_value", "logit_bias.1"),
    ({"logit_bias": {"1": "5"}}, "invalid_type", "logit_bias.1"),
    ({"logit_bias": []}, "invalid_type", "logit_bias"),
    ({"logprobs": 5}, "invalid_type", "logprobs"),
    ({"top_logprobs": 21}, "integer_above_max_value", "top_logprobs"),
    ({"top_logprobs": -1}, "integer_below_min_value", "top_logprobs"),
    ({"user": 1}, "invalid_type", "user"),
    ({"tools": []}, "empty_array", "tools"),
    ({"tools": [function(name="f")] * 129}, "array_above_max_length", "tools"),
    ({"tools": [{"type": "robot"}]}, "invalid_value", "tools[0].type"),
    ({"tools": [{"function": {"name": "f"}}]}, "missing_required_parameter", "tools[0].type"),
    ({"tools": [{"type": "function"}]}, "missing_required_parameter", "tools[0].function"),
    ({"tools": [function()]}, "missing_required_parameter", "tools[0].function.name"),
    ({"tools": [function(name="get weather")]}, "invalid_value", "tools[0].function.name"),
    ({"tools": [function(name="f\n")]}, "invalid_value", "tools[0].function.name"),
    ({"tools": [function(name="")]}, "invalid_value", "tools[0].function.name"),
    ({"tools": [function(name=LONG)]}, "string_above_max_length", "tools[0].function.name"),
    ({"tools": [function(name="f", strict="yes")]}, "invalid_type", "tools[0].function.strict"),
    ({"tools": [{"type": "custom", "custom": {"name": "f", "format": {"type": "xml"}}}]}, "invalid_value",
     "tools[0].custom.format.type"),
    ({"tools": [{"type": "custom", "custom": {"name": "f", "format": {"type": "grammar", "grammar":
        {"syntax": "bnf", "definition": ""}}}}]}, "invalid_value", "tools[0].custom.format.grammar.syntax"),
    ({"tool_choice": "sometimes"}, "invalid_value", "tool_choice"),
    ({"tool_choice": 1}, "invalid_type", "tool_choice"),
    ({"tool_choice": {}}, "missing_required_parameter", "tool_choice.type"),
    ({"tool_choice": {"type": "function"}}, "missing_required_parameter", "tool_choice.function"),
    ({"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "none", "tools": []}}}, "invalid_value",
     "tool_choice.allowed_tools.mode"),
    ({"parallel_tool_calls": "no"}, "invalid_type", "parallel_tool_calls"),
    ({"response_format": "json"}, "invalid_type", "response_format"),
    ({"response_format": {"type": "yaml"}}, "invalid_value", "response_format.type"),
    ({"response_format": {"type": "json_schema", "json_schema": {}}}, "missing_required_parameter",
     "response_format.json_schema.name"),
    ({"response_format": {"json_schema": {"name": "a b"}}}, "invalid_value", "response_format.json_schema.name"),
    ({"seed": 2**63}, "integer_above_max_value", "seed"),
    ({"seed": -(2**63) - 1}, "integer_below_min_value", "seed"),
    ({"seed": "1"}, "invalid_type", "seed"),
    ({"reasoning_effort": "extreme"}, "invalid_value", "reasoning_effort"),
    ({"verbosity": "loud"}, "invalid_value", "verbosity"),
    ({"modalities": []}, "empty_array", "modalities"),
    ({"modalities": ["video"]}, "invalid_value", "modalities[0]"),
    ({"audio": {"format": "mp3"}}, "missing_required_parameter", "audio.voice"),
    ({"audio": {"voice": "ash"}}, "missing_required_parameter", "audio.format"),
    ({"audio": {"voice": {"name": "ash"}, "format": "mp3"}}, "missing_required_parameter", "audio.voice.id"),
    ({"audio": {"voice": "ash", "format": "midi"}}, "invalid_value", "audio.format"),
    ({"prediction": {"content": "x"}}, "missing_required_parameter", "prediction.type"),
    ({"prediction": {"type": "content", "content": []}}, "empty_array", "prediction.content"),
    ({"store": "yes"}, "invalid_type", "store"),
    ({"metadata": {str(i): "" for i in range(17)}}, "object_above_max_properties", "metadata"),
    ({"metadata": {"k" * 65: ""}}, "string_above_max_length", "metadata"),
    ({"metadata": {"k": "v" * 513}}, "string_above_max_length", "metadata.k"),
    ({"metadata": {"k": 1}}, "invalid_type", "metadata.k"),
    ({"service_tier": "gold"}, "invalid_value", "service_tier"),
    ({"safety_identifier": "x" * 65}, "string_above_max_length", "safety_identifier"),
    ({"prompt_cache_key": 1}, "invalid_type", "prompt_cache_key"),
    ({"prompt_cache_options": {"mode": "never"}}, "invalid_value", "prompt_cache_options.mode"),
    ({"prompt_cache_options": {"ttl": "1h"}}, "invalid_value", "prompt_cache_options.ttl"),
    ({"prompt_cache_retention": "7d"}, "invalid_value", "prompt_cache_retention"),
    ({"web_search_options": {"search_context_size": "huge"}}, "invalid_value",
     "web_search_options.search_context_size"),
    ({"web_search_options": {"user_location": {"type": "exact", "approximate": {}}}}, "invalid_value",
     "web_search_options.user_location.type"),
    ({"moderation": {}}, "missing_required_parameter", "moderation.model"),
    ({"moderation": {"model": "m", "policy": {"input": {"mode": "x"}}}}, "invalid_value",
     "moderation.policy.input.mode"),
    ({"functions": []}, "empty_array", "functions"),
    ({"functions": [{}]}, "missing_required_parameter", "functions[0].name"),
    ({"function_call": "required"}, "invalid_value", "function_call"),
    ({"function_call": {}}, "missing_required_parameter", "function_call.name"),
    ({"top_k": 40}, "unknown_parameter", "top_k"),
]  # fmt: skip

MESSAGES: list[tuple[dict[str, Any], str, str]] = [
    ({}, "missing_required_parameter", "role"),
    ({"role": None}, "invalid_type", "role"),
    ({"role": "robot", "content": "x"}, "invalid_value", "role"),
    ({"role": "developer"}, "missing_required_parameter", "content"),
    ({"role": "system"}, "missing_required_parameter", "content"),
    ({"role": "user"}, "missing_required_parameter", "content"),
    ({"role": "user", "content": None}, "invalid_type", "content"),
    ({"role": "user", "content": 1}, "invalid_type", "content"),
    ({"role": "user", "content": []}, "empty_array", "content"),
    ({"role": "user", "content": ["x"]}, "invalid_type", "content[0]"),
    ({"role": "user", "content": "x", "name": "two words"}, "invalid_value", "name"),
    ({"role": "user", "content": "x", "name": "bob\n"}, "invalid_value", "name"),
    ({"role": "user", "content": "x", "name": "x" * 65}, "string_above_max_length", "name"),
    ({"role": "system", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, "invalid_value",
     "content[0].type"),
    ({"role": "assistant", "content": [{"type": "image_url"}]}, "invalid_value", "content[0].type"),
    ({"role": "assistant", "tool_calls": []}, "empty_array", "tool_calls"),
    ({"role": "assistant", "tool_calls": [{"id": "c"}]}, "missing_required_parameter", "tool_calls[0].type"),
    ({"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": "{}"}}]},
     "missing_required_parameter", "tool_calls[0].id"),
    ({"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f"}}]},
     "missing_required_parameter", "tool_calls[0].function.arguments"),
    ({"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": {}}}]},
     "invalid_type", "tool_calls[0].function.arguments"),
    ({"role": "assistant", "audio": {}}, "missing_required_parameter", "audio.id"),
    ({"role": "tool", "content": "x"}, "missing_required_parameter", "tool_call_id"),
    ({"role": "tool", "tool_call_id": "c"}, "missing_required_parameter", "content"),
    ({"role": "function", "content": "x"}, "missing_required_parameter", "name"),
    ({"role": "function", "name": "f"}, "missing_required_parameter", "content"),
]  # fmt: skip

PARTS: list[tuple[dict[str, Any], str, str]] = [
    ({"text": "x"}, "missing_required_parameter", "type"),
    ({"type": "video"}, "invalid_value", "type"),
    ({"type": "text"}, "missing_required_parameter", "text"),
    ({"type": "text", "text": None}, "invalid_type", "text"),
    ({"type": "text", "text": "x", "prompt_cache_breakpoint": {"mode": "x"}}, "invalid_value",
     "prompt_cache_breakpoint.mode"),
    ({"type": "image_url", "image_url": "http://x/"}, "invalid_type", "image_url"),
    ({"type": "image_url", "image_url": {}}, "missing_required_parameter", "image_url.url"),
    ({"type": "image_url", "image_url": {"url": "http://x/", "detail": "max"}}, "invalid_value", "image_url.detail"),
    ({"type": "input_audio", "input_audio": {"data": "AA=="}}, "missing_required_parameter", "input_audio.format"),
    ({"type": "input_audio", "input_audio": {"data": "AA==", "format": "ogg"}}, "invalid_value", "input_audio.format"),
    ({"type": "file"}, "missing_required_parameter", "file"),
    ({"type": "file", "file": {"file_id": 1}}, "invalid_type", "file.file_id"),
]  # fmt: skip


def _hold(error: InvalidRequest, code: str, param: str) -> None:
    assert (error.status, error.type, error.code, error.param) == (400, "invalid_request_error", code, param)
    assert f"'{param}'" in error.message


@pytest.mark.parametrize(("fields", "code", "param"), FIELDS)
def test_a_request_s_fields(fields: dict[str, Any], code: str, param: str) -> None:
    _hold(fault(**fields), code, param)


@pytest.mark.parametrize(("message", "code", "field"), MESSAGES)
def test_messages(message: dict[str, Any], code: str, field: str) -> None:
    _hold(message_fault(message), code, f"messages[1].{field}")


@pytest.mark.parametrize(("part", "code", "field"), PARTS)
def test_parts(part: dict[str, Any], code: str, field: str) -> None:
    _hold(part_fault(part), code, f"messages[1].content[0].{field}")


@pytest.mark.parametrize("field", ["model", "messages"])
def test_missing_fields(field: str) -> None:
    body = {"model": "m", "messages": [USER]}
    del body[field]
    with pytest.raises(InvalidRequest, match=f"Missing required parameter: '{field}'"):
        validate(ChatRequest, body)


def test_the_first_fault_of_the_document_is_told() -> None:
    with pytest.raises(InvalidRequest) as caught:
        validate(ChatRequest, {"n": 0, "temperature": 3, "messages": []})
    assert caught.value.param == "n"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (lambda: fault(temperature="0.7"), 'expected a number, but got a string ("0.7") instead'),
        (lambda: fault(stop=3), "expected a string or an array, but got an integer (3) instead"),
        (lambda: fault(stream_options=[1]), "expected an object, but got an array instead"),
        (lambda: fault(n=0), "Expected a value >= 1, but got 0 instead"),
        (lambda: fault(verbosity="loud"), "\"loud\". Supported values are: 'high', 'low', 'medium'"),
        (lambda: message_fault({"role": "robot"}), "Supported values are: 'developer', 'system', 'user', 'assistant'"),
        (lambda: fault(stop=list("abcde")), "maximum length 4, but got an array with length 5"),
        (lambda: fault(temprature=1), "Did you mean 'temperature'?"),
        (lambda: fault(tools=[function(name="a b")]), "matches '^[a-zA-Z0-9_-]+$', but got \"a b\""),
    ],
)
def test_messages_say_what_was_given_and_what_is_allowed(error: Any, text: str) -> None:
    assert text in error().message


def test_nothing_long_is_repeated() -> None:
    for error in (fault(verbosity="z" * 10_000), fault(**{"z" * 10_000: 1}), fault(metadata={"z" * 10_000: ""})):
        assert error.message.count("z") <= 200
        assert len(error.param or "") <= 64


def test_null_is_not_given_wherever_a_field_is_optional() -> None:
    optional = [name for name in ChatRequest.__struct_fields__ if name not in ("model", "messages")]
    validate(ChatRequest, {"model": "m", "messages": [USER], **dict.fromkeys(optional)})


def test_every_kind_of_type_has_its_check_and_its_words() -> None:
    wordless = {msgspec.inspect.NoneType, msgspec.inspect.RawType}
    assert KINDS.keys() == CHECKS.keys() == EXPECTED.keys() | wordless


@pytest.mark.parametrize(
    ("value", "words"), [(None, "null"), (True, "a boolean (true)"), (1.5, "a decimal (1.5)"), ({}, "an object")]
)
def test_given(value: object, words: str) -> None:
    assert given(value) == words
