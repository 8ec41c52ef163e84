"""The rules between fields, a row of contract.md §5-§8 each: what breaks them, and what comes close and does not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from chatport.wire.chat import ChatRequest
from chatport.wire.decode import DEFAULT_LIMITS, decode_request
from chatport.wire.errors import InvalidRequest
from chatport.wire.rules import check_request

USER: dict[str, Any] = {"role": "user", "content": "hi"}
TOOLS = [
    {"type": "function", "function": {"name": "f"}},
    {"type": "custom", "custom": {"name": "c"}},
]
F = {"type": "function", "function": {"name": "f"}}
G = {"type": "function", "function": {"name": "g"}}
CUSTOM = {"type": "custom", "custom": {"name": "c"}}
CUSTOM_F = {"type": "custom", "custom": {"name": "f"}}


def request(**fields: Any) -> ChatRequest:
    return decode_request(json.dumps({"model": "m", "messages": [USER], **fields}).encode())


def refusal(**fields: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        request(**fields)
    return caught.value


def allowed(*tools: dict[str, Any], mode: str = "auto") -> dict[str, Any]:
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}


def parameters(schema: object, **more: object) -> dict[str, Any]:
    return {"tools": [{"type": "function", "function": {"name": "f", "parameters": schema, **more}}]}


def grammar(definition: str, syntax: str = "regex") -> dict[str, Any]:
    form = {"type": "grammar", "grammar": {"syntax": syntax, "definition": definition}}
    return {"tools": [{"type": "custom", "custom": {"name": "c", "format": form}}]}


def json_schema(**fields: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "n", **fields}}}


CLOSED = {"type": "object", "properties": {}, "additionalProperties": False}
MISSING, VALUE, FUNCTION = "missing_required_parameter", "invalid_value", "invalid_function_parameters"

REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"stream_options": {}}, VALUE, "stream_options"),
    ({"stream_options": {"include_usage": True}, "stream": False}, VALUE, "stream_options"),
    ({"stream_options": {"include_usage": True}, "stream": None}, VALUE, "stream_options"),
    ({"top_logprobs": 2}, VALUE, "top_logprobs"),
    ({"top_logprobs": 0, "logprobs": False}, VALUE, "top_logprobs"),
    ({"tool_choice": "required"}, VALUE, "tool_choice"),
    ({"tool_choice": F}, VALUE, "tool_choice"),
    ({"tool_choice": allowed(F)}, VALUE, "tool_choice"),
    ({"tool_choice": G, "tools": TOOLS}, VALUE, "tool_choice"),
    ({"tool_choice": CUSTOM_F, "tools": TOOLS}, VALUE, "tool_choice"),
    ({"tool_choice": allowed(F, G), "tools": TOOLS}, VALUE, "tool_choice"),
    ({"tool_choice": allowed(), "tools": TOOLS}, VALUE, "tool_choice"),
    ({"function_call": {"name": "f"}}, VALUE, "function_call"),
    ({"function_call": {"name": "g"}, "functions": [{"name": "f"}]}, VALUE, "function_call"),
    ({"function_call": {"name": "f"}, "tools": TOOLS}, VALUE, "function_call"),
    ({"functions": [{"name": "f"}], "tools": TOOLS}, VALUE, "functions"),
    ({"modalities": ["text", "audio"]}, MISSING, "audio"),
    ({"response_format": {"type": "json_object"}}, VALUE, "messages"),
    ({"response_format": {"type": "json_schema"}}, MISSING, "response_format.json_schema"),
    (json_schema(strict=True), MISSING, "response_format.json_schema.schema"),
    (json_schema(schema=[]), "invalid_type", "response_format.json_schema.schema"),
    (json_schema(schema={}, strict=True), VALUE, "response_format"),
    (parameters("{}"), "invalid_type", "tools[0].function.parameters"),
    (parameters({"type": "array"}), FUNCTION, "tools[0].function.parameters"),
    (parameters({"type": "object"}, strict=True), FUNCTION, "tools[0].function.parameters"),
    ({"functions": [{"name": "f", "parameters": []}]}, "invalid_type", "functions[0].parameters"),
    ({"functions": [{"name": "f", "parameters": {"type": "null"}}]}, FUNCTION, "functions[0].parameters"),
    (grammar("(["), VALUE, "tools[0].custom.format.grammar.definition"),
]

ACCEPTED: list[dict[str, Any]] = [
    {"stream_options": {"include_usage": True}, "stream": True},
    {"stream_options": None, "stream": False},
    {"top_logprobs": 0, "logprobs": True},
    {"tool_choice": "none"},
    {"tool_choice": "auto"},
    {"tool_choice": "required", "tools": TOOLS},
    {"tool_choice": F, "tools": TOOLS},
    {"tool_choice": CUSTOM, "tools": TOOLS},
    {"tool_choice": allowed(F, CUSTOM, mode="required"), "tools": TOOLS},
    {"parallel_tool_calls": False},
    {"function_call": "auto"},
    {"function_call": {"name": "f"}, "functions": [{"name": "f"}]},
    {"modalities": ["audio"], "audio": {"voice": "ash", "format": "mp3"}},
    {"audio": {"voice": "ash", "format": "mp3"}},
    {"metadata": {"a": "b"}},
    {"response_format": {}},
    {"response_format": {"type": "text"}},
    {"response_format": {"type": "text", "json_schema": None}},
    {"response_format": {"json_schema": {"name": "n", "schema": CLOSED, "strict": True}}},
    json_schema(),
    json_schema(schema=None),
    json_schema(schema={"allOf": [{"not": {}}], "type": ["array"]}),
    json_schema(schema={}, strict=False),
    parameters(None),
    parameters(None, strict=True),
    parameters({}),
    parameters({"properties": {"a": {"oneOf": []}}}),
    parameters({"type": "object", "properties": {"a": {"pattern": "["}}}),
    parameters(CLOSED, strict=True),
    grammar("[a-z]+(?<year>\\d{4})"),
    grammar("start: (", syntax="lark"),
]


@pytest.mark.parametrize(("fields", "code", "param"), REFUSED)
def test_refused(fields: dict[str, Any], code: str, param: str) -> None:
    error = refusal(**fields)
    assert (error.status, error.code, error.param) == (400, code, param)
    assert error.message[-1] in ".?"


@pytest.mark.parametrize("fields", ACCEPTED)
def test_accepted(fields: dict[str, Any]) -> None:
    request(**fields)


@pytest.mark.parametrize("field", sorted({*ChatRequest.__struct_fields__} - {"model", "messages"}))
def test_a_rule_rests_while_its_field_is_not_given(field: str) -> None:
    check_request(request(**{field: None}), DEFAULT_LIMITS)


def test_messages_name_what_is_there() -> None:
    assert (
        'no function tool named "g" is in \'tools\'. Those there: "f".' in refusal(tool_choice=G, tools=TOOLS).message
    )
    many = [{"name": f"f{i}"} for i in range(12)]
    assert refusal(function_call={"name": "f"}, functions=many).message.endswith('"f7" and 4 more.')


# --- json_object wants to be told ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("messages", "told"),
    [
        ([{"role": "system", "content": "Answer in JSON."}, USER], True),
        ([{"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "text", "text": "as jSoN"}]}], True),
        ([USER, {"role": "assistant", "content": "json?"}], True),
        ([{"role": "user", "content": "j s o n"}], False),
        ([{"role": "user", "content": "x", "name": "json"}], False),
        ([USER, {"role": "assistant", "content": None, "refusal": "json"}], False),
    ],
)
def test_json_object_needs_the_letters(messages: list[Any], told: bool) -> None:
    fields = {"messages": messages, "response_format": {"type": "json_object"}}
    if told:
        request(**fields)
    else:
        assert refusal(**fields).param == "messages"


# --- Parts -----------------------------------------------------------------------------------------------------------


def user_part(part: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}, part]}]}


def image(url: str) -> dict[str, Any]:
    return user_part({"type": "image_url", "image_url": {"url": url}})


def audio(data: str) -> dict[str, Any]:
    return user_part({"type": "input_audio", "input_audio": {"data": data, "format": "wav"}})


@pytest.mark.parametrize(
    "url", ["http://x/a.png", "https://example.com", "HTTPS://EXAMPLE.COM/", "data:image/png;base64,AAAA", "data:,x"]
)
def test_an_image_s_url(url: str) -> None:
    request(**image(url))


@pytest.mark.parametrize(
    "url",
    ["", "x", "ftp://x/a", "file:///etc/passwd", "http://", "https:///a", "data:image/png", "data:image/png,", "//x"],
)
def test_no_image_s_url(url: str) -> None:
    error = refusal(**image(url))
    assert (error.code, error.param) == (VALUE, "messages[0].content[1].image_url.url")


def test_audio_is_base64() -> None:
    request(**audio("UklGRg=="))


@pytest.mark.parametrize("data", ["", "UklGRg", "UklG Rg==", "*", "UklGRg==UklG", "data:audio/wav;base64,UklG", "é"])
def test_audio_that_is_not_base64(data: str) -> None:
    error = refusal(**audio(data))
    assert (error.code, error.param) == (VALUE, "messages[0].content[1].input_audio.data")


# --- Assistant messages ----------------------------------------------------------------------------------------------

REFUSAL_PART = {"type": "refusal", "refusal": "no"}
TEXT_PART = {"type": "text", "text": "x"}


@pytest.mark.parametrize(
    "fields",
    [
        {"content": "x"},
        {"content": ""},
        {"content": [TEXT_PART, TEXT_PART]},
        {"content": [REFUSAL_PART]},
        {"refusal": "no"},
        {"content": None, "audio": {"id": "a"}},
        {"function_call": {"name": "f", "arguments": ""}},
        {"content": None, "reasoning_content": "cut"},
    ],
)
def test_an_assistant_message_says_something(fields: dict[str, Any]) -> None:
    request(messages=[USER, {"role": "assistant", **fields}, USER])


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({}, MISSING),
        ({"content": None}, MISSING),
        ({"content": None, "refusal": None, "tool_calls": None}, MISSING),
        ({"content": [REFUSAL_PART, REFUSAL_PART]}, VALUE),
        ({"content": [TEXT_PART, REFUSAL_PART]}, VALUE),
    ],
)
def test_an_assistant_message_that_does_not(fields: dict[str, Any], code: str) -> None:
    error = refusal(messages=[USER, {"role": "assistant", **fields}])
    assert (error.code, error.param) == (code, "messages[1].content")


# --- Calls and their answers -----------------------------------------------------------------------------------------


def asks(*ids: str) -> dict[str, Any]:
    calls = [{"id": each, "type": "function", "function": {"name": "f", "arguments": "{}"}} for each in ids]
    return {"role": "assistant", "tool_calls": calls}


def answers(call: str) -> dict[str, Any]:
    return {"role": "tool", "content": "1", "tool_call_id": call}


SAYS = {"role": "assistant", "content": "done"}


@pytest.mark.parametrize(
    "messages",
    [
        [USER, asks("a"), answers("a")],
        [USER, asks("a", "b"), answers("b"), answers("a"), SAYS, USER],
        [USER, asks("a"), answers("a"), asks("b"), answers("b")],
        [USER, asks("a"), answers("a"), USER, asks("a"), answers("a")],
        [USER, asks("a"), answers("a"), answers("a")],
    ],
)
def test_every_call_is_answered(messages: list[Any]) -> None:
    request(messages=messages)


@pytest.mark.parametrize(
    ("messages", "place"),
    [
        ([answers("a")], 0),
        ([USER, answers("a")], 1),
        ([USER, SAYS, answers("a")], 2),
        ([USER, asks("a"), answers("b")], 2),
        ([USER, asks("a"), answers("a"), USER, answers("a")], 4),
        ([USER, asks("a"), answers("a"), asks("b"), answers("a")], 4),
        ([USER, asks("a"), USER], 2),
        ([USER, asks("a", "b"), answers("a"), SAYS], 3),
        ([USER, asks("a"), asks("b"), answers("b")], 2),
        ([USER, asks("a")], 1),
        ([USER, asks("a", "b"), answers("b")], 2),
    ],
)
def test_answers_without_a_call_and_calls_without_an_answer(messages: list[Any], place: int) -> None:
    error = refusal(messages=messages)
    assert (error.code, error.param) == (VALUE, f"messages[{place}].role")


def test_the_ids_without_an_answer_are_named() -> None:
    assert '"a", "c"' in refusal(messages=[asks("a", "b", "c"), answers("b")]).message


def patterned(chars: int) -> dict[str, Any]:
    text = {"type": "string", "pattern": "x" * chars}
    return {"type": "object", "properties": {"a": text}, "required": ["a"], "additionalProperties": False}


def test_all_patterns_of_a_request_share_one_budget() -> None:
    strict = parameters(patterned(8_000), strict=True)["tools"]
    regex = grammar("x" * 8_000)["tools"]
    fits = json_schema(schema=patterned(4_000), strict=True)
    request(tools=strict + regex, **fits)

    over = refusal(tools=strict + regex, **json_schema(schema=patterned(4_001), strict=True))
    assert (over.code, over.param) == (VALUE, "response_format")
    assert "too many characters of patterns: 20001, allowed are 20000" in over.message

    over = refusal(tools=strict + grammar("x" * 12_001)["tools"])
    assert (over.code, over.param) == (VALUE, "tools[1].custom.format.grammar.definition")
    assert len(over.message) < 300


def test_each_request_has_a_budget_of_its_own() -> None:
    for _ in range(2):
        request(**grammar("x" * 20_000))
