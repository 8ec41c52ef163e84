"""contract.md §5 to §8: messages and their parts, tools, formats, and what holds between fields, end to end."""

from __future__ import annotations

from types import EllipsisType
from typing import Any

import pytest

from support.asking import HELLO, Api

USER: dict[str, Any] = HELLO[0]
CALL = {"id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}
CUSTOM_CALL = {"id": "call_2", "type": "custom", "custom": {"name": "shell", "input": "ls"}}
ASKED = {"role": "assistant", "content": None, "tool_calls": [CALL]}
ANSWERED = {"role": "tool", "tool_call_id": "call_1", "content": "42"}
TEXT = {"type": "text", "text": "hello"}
LOOK_UP = {"type": "function", "function": {"name": "look_up"}}
SHELL = {"type": "custom", "custom": {"name": "shell"}}

Code = str | None | EllipsisType
"""`...`: the contract leaves the code open."""


def said(*messages: dict[str, Any]) -> dict[str, Any]:
    return {"messages": list(messages)}


GOOD_MESSAGES = {
    "developer": said({"role": "developer", "content": "Be brief."}, USER),
    "developer-parts": said({"role": "developer", "content": [TEXT], "name": "boss"}, USER),
    "system": said({"role": "system", "content": [TEXT, TEXT]}, USER),
    "user-name": said({**USER, "name": "José_1"}),
    "user-parts": said({"role": "user", "content": [TEXT, TEXT]}),
    "assistant-null": said(USER, {"role": "assistant", "content": None, "refusal": "No."}, USER),
    "assistant-parts": said(USER, {"role": "assistant", "content": [TEXT, TEXT]}, USER),
    "assistant-refusal-part": said(
        USER, {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}, USER
    ),
    "assistant-reasoning": said(USER, {"role": "assistant", "content": "x", "reasoning_content": "hm"}, USER),
    "assistant-reasoning-null": said(USER, {"role": "assistant", "content": "x", "reasoning": None}, USER),
    "tool": said(USER, ASKED, ANSWERED),
    "tool-parts": said(USER, ASKED, {**ANSWERED, "content": [TEXT]}),
    "tool-name": said(USER, ASKED, {**ANSWERED, "name": "look_up"}),
    "custom-call": said(
        USER, {**ASKED, "tool_calls": [CUSTOM_CALL]}, {"role": "tool", "tool_call_id": "call_2", "content": "x"}
    ),
    "two-calls": said(
        USER, {**ASKED, "tool_calls": [CALL, CUSTOM_CALL]}, {**ANSWERED, "tool_call_id": "call_2"}, ANSWERED, USER
    ),
    "function": said(
        USER,
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": None},
    ),
    "unknown-keys": said({**USER, "mood": "sunny", "content": [{**TEXT, "colour": "red"}]}),
    "cache-breakpoint": said({"role": "user", "content": [{**TEXT, "prompt_cache_breakpoint": {"mode": "explicit"}}]}),
    "image": said(
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://a.example/x.png"}}]}
    ),
    "image-data": said(
        {
            "role": "user",
            "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "low"}}],
        }
    ),
    "audio": said(
        {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}]}
    ),
    "file": said({"role": "user", "content": [{"type": "file", "file": {"file_id": "f_1"}}]}),
}


@pytest.mark.parametrize("fields", GOOD_MESSAGES.values(), ids=GOOD_MESSAGES)
def test_messages_taken(api: Api, fields: dict[str, Any]) -> None:
    api.completion(model="poem", **fields)


BAD_MESSAGES: dict[str, tuple[dict[str, Any], Code, str]] = {
    "role-unknown": (said({"role": "robot", "content": "x"}), "invalid_value", "messages[0].role"),
    "role-missing": (said({"content": "x"}), "missing_required_parameter", "messages[0].role"),
    "developer-content": (said({"role": "developer"}), "missing_required_parameter", "messages[0].content"),
    "system-null": (said({"role": "system", "content": None}, USER), "invalid_type", "messages[0].content"),
    "system-image": (
        said({"role": "system", "content": [{"type": "image_url", "image_url": {"url": "https://a.example"}}]}),
        "invalid_value",
        "messages[0].content[0].type",
    ),
    "user-content": (said(USER, {"role": "user"}), "missing_required_parameter", "messages[1].content"),
    "user-null": (said({"role": "user", "content": None}), "invalid_type", "messages[0].content"),
    "user-empty-parts": (said({"role": "user", "content": []}), "empty_array", "messages[0].content"),
    "user-number": (said({"role": "user", "content": 5}), "invalid_type", "messages[0].content"),
    "assistant-nothing": (said(USER, {"role": "assistant"}), "missing_required_parameter", "messages[1].content"),
    "assistant-empty-calls": (
        said(USER, {"role": "assistant", "content": "x", "tool_calls": []}),
        "empty_array",
        "messages[1].tool_calls",
    ),
    "assistant-two-refusals": (
        said(USER, {"role": "assistant", "content": [{"type": "refusal", "refusal": "a"}] * 2}),
        ...,
        "messages[1].content",
    ),
    "call-without-id": (
        said(USER, {**ASKED, "tool_calls": [{"type": "function", "function": CALL["function"]}]}),
        "missing_required_parameter",
        "messages[1].tool_calls[0].id",
    ),
    "call-without-arguments": (
        said(USER, {**ASKED, "tool_calls": [{**CALL, "function": {"name": "f"}}]}),
        "missing_required_parameter",
        "messages[1].tool_calls[0].function.arguments",
    ),
    "call-arguments-object": (
        said(USER, {**ASKED, "tool_calls": [{**CALL, "function": {"name": "f", "arguments": {}}}]}),
        "invalid_type",
        "messages[1].tool_calls[0].function.arguments",
    ),
    "tool-without-id": (
        said(USER, ASKED, {"role": "tool", "content": "x"}),
        "missing_required_parameter",
        "messages[2].tool_call_id",
    ),
    "tool-answers-nobody": (said(USER, ANSWERED), ..., "messages[1].role"),
    "tool-unknown-id": (said(USER, ASKED, {**ANSWERED, "tool_call_id": "call_9"}), ..., "messages[2]"),
    "call-unanswered": (said(USER, ASKED, USER), ..., "messages[2].role"),
    "function-without-name": (
        said(USER, {"role": "function", "content": "x"}),
        "missing_required_parameter",
        "messages[1].name",
    ),
    "name-with-space": (said({**USER, "name": "a b"}), "invalid_value", "messages[0].name"),
    "name-too-long": (said({**USER, "name": "a" * 65}), ..., "messages[0].name"),
    "name-empty": (said({**USER, "name": ""}), ..., "messages[0].name"),
    "part-unknown": (
        said({"role": "user", "content": [{"type": "smell"}]}),
        "invalid_value",
        "messages[0].content[0].type",
    ),
    "part-text-missing": (
        said({"role": "user", "content": [TEXT, {"type": "text"}]}),
        "missing_required_parameter",
        "messages[0].content[1].text",
    ),
    "part-text-number": (
        said({"role": "user", "content": [{"type": "text", "text": 5}]}),
        "invalid_type",
        "messages[0].content[0].text",
    ),
    "image-url": (
        said({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "ftp://a.example"}}]}),
        "invalid_value",
        "messages[0].content[0].image_url.url",
    ),
    "image-detail": (
        said({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://a", "detail": "tiny"}}]}),
        "invalid_value",
        "messages[0].content[0].image_url.detail",
    ),
    "audio-format": (
        said({"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "AA==", "format": "ogg"}}]}),
        "invalid_value",
        "messages[0].content[0].input_audio.format",
    ),
    "audio-base64": (
        said({"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "%%", "format": "wav"}}]}),
        "invalid_value",
        "messages[0].content[0].input_audio.data",
    ),
}


def check_refused(api: Api, fields: dict[str, Any], code: Code, param: str) -> None:
    refused = api.refusal(**fields)
    assert (refused.status, refused.type) == (400, "invalid_request_error"), refused
    assert refused.code == code or isinstance(code, EllipsisType), refused
    assert (refused.param or "").startswith(param), refused


@pytest.mark.parametrize(("fields", "code", "param"), BAD_MESSAGES.values(), ids=BAD_MESSAGES)
def test_messages_refused(api: Api, fields: dict[str, Any], code: Code, param: str) -> None:
    check_refused(api, fields, code, param)


def test_a_reply_can_be_sent_back_as_it_is(api: Api) -> None:
    """§5, round trip: every key of `choices[].message`, `refusal:null` and `annotations:[]` too."""
    message = api.completion()["choices"][0]["message"]
    api.completion(**said(USER, message, USER))
    api.completion(**said(USER, {**message, "audio": None, "function_call": None, "tool_calls": None}, USER))


def test_a_reply_with_calls_can_be_sent_back_as_it_is(api: Api) -> None:
    message = api.completion(tools=[LOOK_UP], tool_choice="required")["choices"][0]["message"]
    answer = {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "42"}
    api.completion(**said(USER, message, answer), tools=[LOOK_UP])


def test_parts_of_text_are_their_joined_text(api: Api) -> None:
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    assert api.text(**said({"role": "user", "content": parts})) == "one two"


def tool(**function: Any) -> dict[str, Any]:
    return {"tools": [{"type": "function", "function": {"name": "look_up", **function}}]}


STRICT_OBJECT = {
    "type": "object",
    "properties": {"a": {"type": "string"}},
    "required": ["a"],
    "additionalProperties": False,
}


def schema(**changes: Any) -> dict[str, Any]:
    return {**STRICT_OBJECT, **changes}


def formatted(json_schema: dict[str, Any]) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": json_schema}}


def strictly(whole: Any) -> dict[str, Any]:
    return formatted({"name": "answer", "strict": True, "schema": whole})


def strict_property(one: Any, **more: Any) -> dict[str, Any]:
    return strictly(schema(properties={"a": one}, **more))


GOOD_TOOLS = {
    "function": {"tools": [LOOK_UP]},
    "no-parameters": tool(description="d", strict=None),
    "parameters": tool(parameters={"type": "object", "properties": {"a": {"type": "string"}}}),
    "strict": tool(parameters=STRICT_OBJECT, strict=True),
    "custom": {"tools": [SHELL]},
    "custom-text": {"tools": [{"type": "custom", "custom": {"name": "s", "format": {"type": "text"}}}]},
    "custom-regex": {
        "tools": [
            {
                "type": "custom",
                "custom": {
                    "name": "s",
                    "format": {"type": "grammar", "grammar": {"syntax": "regex", "definition": "[a-z]+"}},
                },
            }
        ]
    },
    "many": {"tools": [{"type": "function", "function": {"name": f"f{i}"}} for i in range(128)]},
    "choice-none": {"tools": [LOOK_UP], "tool_choice": "none"},
    "choice-custom": {"tools": [SHELL], "tool_choice": {"type": "custom", "custom": {"name": "shell"}}},
    "choice-allowed": {
        "tools": [LOOK_UP, SHELL],
        "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [LOOK_UP]}},
    },
    "choice-none-without-tools": {"tool_choice": "none"},
    "choice-auto-without-tools": {"tool_choice": "auto"},
    "parallel-without-tools": {"parallel_tool_calls": False},
}


@pytest.mark.parametrize("fields", GOOD_TOOLS.values(), ids=GOOD_TOOLS)
def test_tools_taken(api: Api, fields: dict[str, Any]) -> None:
    api.completion(**fields)


NAMED = {"type": "function", "function": {"name": "look_up"}}
BAD_TOOLS: dict[str, tuple[dict[str, Any], Code, str]] = {
    "name-missing": ({"tools": [{"type": "function", "function": {}}]}, "missing_required_parameter", "tools[0]"),
    "name-with-space": (tool(name="a b"), "invalid_value", "tools[0].function.name"),
    "name-too-long": (tool(name="a" * 65), ..., "tools[0].function.name"),
    "parameters-array": (tool(parameters=[]), ..., "tools[0].function.parameters"),
    "parameters-root": (tool(parameters={"type": "string"}), ..., "tools[0].function.parameters"),
    "strict-outside-the-subset": (
        tool(strict=True, parameters={"type": "object", "properties": {"a": {"type": "string"}}}),
        ...,
        "tools[0].function.parameters",
    ),
    "custom-syntax": (
        {
            "tools": [
                {
                    "type": "custom",
                    "custom": {
                        "name": "s",
                        "format": {"type": "grammar", "grammar": {"syntax": "bnf", "definition": "x"}},
                    },
                }
            ]
        },
        "invalid_value",
        "tools[0].custom.format.grammar.syntax",
    ),
    "required-without-tools": ({"tool_choice": "required"}, ..., "tool_choice"),
    "named-without-tools": ({"tool_choice": NAMED}, ..., "tool_choice"),
    "named-unknown": (
        {"tools": [LOOK_UP], "tool_choice": {"type": "function", "function": {"name": "other"}}},
        ...,
        "tool_choice",
    ),
    "allowed-unknown": (
        {
            "tools": [LOOK_UP],
            "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [SHELL]}},
        },
        ...,
        "tool_choice",
    ),
    "functions-beside-tools": ({"tools": [LOOK_UP], "functions": [{"name": "f"}]}, ..., "functions"),
    "function-call-unknown": ({"functions": [{"name": "f"}], "function_call": {"name": "g"}}, ..., "function_call"),
    "stream-options-alone": ({"stream_options": {"include_usage": True}}, ..., "stream_options"),
    "stream-options-without-stream": (
        {"stream": False, "stream_options": {"include_usage": True}},
        ...,
        "stream_options",
    ),
    "top-logprobs-alone": ({"top_logprobs": 2}, ..., "top_logprobs"),
    "top-logprobs-without-logprobs": ({"logprobs": False, "top_logprobs": 2}, ..., "top_logprobs"),
    "audio-without-audio": ({"modalities": ["text", "audio"]}, ..., "audio"),
}


@pytest.mark.parametrize(("fields", "code", "param"), BAD_TOOLS.values(), ids=BAD_TOOLS)
def test_what_does_not_go_together_is_refused(api: Api, fields: dict[str, Any], code: Code, param: str) -> None:
    check_refused(api, fields, code, param)


GOOD_FORMATS = {
    "text": {"response_format": {"type": "text"}},
    "nothing": {"response_format": {}},
    "json_object": {
        "response_format": {"type": "json_object"},
        "messages": [{"role": "user", "content": "An object in JsOn"}],
    },
    "json_schema": formatted({"name": "answer", "schema": {"type": "object"}}),
    "json_schema-without-type": {"response_format": {"json_schema": {"name": "answer", "schema": {"type": "object"}}}},
    "json_schema-without-schema": formatted({"name": "answer"}),
    "not-strict": formatted({"name": "answer", "strict": False, "schema": {"type": "object", "oneOf": [{}]}}),
    "strict": strictly(STRICT_OBJECT),
    "strict-anyOf": strict_property({"anyOf": [{"type": "string"}, {"type": "null"}]}),
    "strict-types": strict_property({"type": ["string", "null"]}),
    "strict-enum": strict_property({"type": "string", "enum": ["a", "b"]}),
    "strict-const": strict_property({"const": "a"}),
    "strict-string": strict_property({"type": "string", "pattern": "^[a-z]+$"}),
    "strict-default": strict_property({"type": "integer", "default": 1}),
    "strict-format": strict_property({"type": "string", "format": "date-time"}),
    "strict-number": strict_property({"type": "number", "minimum": 0, "maximum": 9, "multipleOf": 0.5}),
    "strict-array": strict_property({"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 3}),
    "strict-recursive": strict_property({"anyOf": [{"$ref": "#"}, {"type": "null"}]}),
    "strict-defs": strict_property({"$ref": "#/$defs/b"}, **{"$defs": {"b": {"type": "string"}}}),
}


@pytest.mark.parametrize("fields", GOOD_FORMATS.values(), ids=GOOD_FORMATS)
def test_formats_taken(api: Api, fields: dict[str, Any]) -> None:
    api.completion(**fields)


def nested(levels: int) -> dict[str, Any]:
    inner: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        inner = schema(properties={"a": inner})
    return inner


def wide(count: int) -> dict[str, Any]:
    names = [f"p{i}" for i in range(count)]
    return schema(properties={name: {"type": "string"} for name in names}, required=names)


REFUSED_WORDS: dict[str, Any] = {
    "allOf": [{}],
    "not": {},
    "if": {},
    "then": {},
    "else": {},
    "dependentRequired": {},
    "dependentSchemas": {},
    "patternProperties": {},
    "oneOf": [{}],
}

BAD_FORMATS = {
    "type": {"response_format": {"type": "yaml"}},
    "no-json-in-the-messages": {"response_format": {"type": "json_object"}},
    "schema-missing": {"response_format": {"type": "json_schema"}},
    "name-missing": formatted({"schema": {"type": "object"}}),
    "name-form": formatted({"name": "an answer", "schema": {"type": "object"}}),
    "schema-array": formatted({"name": "answer", "schema": []}),
    "strict-root-type": strictly({"type": "string"}),
    "strict-root-anyOf": strictly(schema(anyOf=[{"type": "object"}])),
    "strict-additional": strictly(schema(additionalProperties=True)),
    "strict-additional-missing": strictly({"type": "object", "properties": {}, "required": []}),
    "strict-required": strictly(schema(required=[])),
    "strict-nested-required": strict_property(schema(required=[])),
    "strict-unknown-type": strict_property({"type": "date"}),
    "strict-pattern": strict_property({"type": "string", "pattern": "("}),
    "strict-format": strict_property({"type": "string", "format": "colour"}),
    "strict-unresolved": strict_property({"$ref": "#/$defs/nowhere"}),
    "strict-remote": strict_property({"$ref": "https://a.example/schema.json"}),
    **{f"strict-{word}": strict_property({**STRICT_OBJECT, word: value}) for word, value in REFUSED_WORDS.items()},
    "strict-levels": strictly(nested(11)),
    "strict-properties": strictly(wide(5001)),
    "strict-enum-values": strict_property({"type": "string", "enum": [f"v{i}" for i in range(1001)]}),
    "strict-enum-length": strict_property({"type": "string", "enum": [f"{i:061d}" for i in range(251)]}),
    "strict-characters": strict_property({"type": "string", "enum": ["x" * 120_001]}),
}


@pytest.mark.parametrize("fields", BAD_FORMATS.values(), ids=BAD_FORMATS)
def test_formats_refused(api: Api, fields: dict[str, Any]) -> None:
    refused = api.refusal(**fields)
    assert (refused.status, refused.type) == (400, "invalid_request_error"), refused
    assert (refused.param or "").startswith(("response_format", "messages")), refused


def test_a_strict_fault_is_named_with_its_path(api: Api) -> None:
    refused = api.refusal(**strict_property(schema(required=[])))
    assert "properties" in refused.message
    assert "'a'" in refused.message


class TestCallsAndFormatsGenerated:
    """What the scripted model does with tools and formats; the embedded one follows in a later issue."""

    @pytest.mark.parametrize("choice", ["required", NAMED], ids=["required", "named"])
    def test_a_call_is_made(self, api: Api, choice: Any) -> None:
        reply = api.completion(tools=[LOOK_UP], tool_choice=choice)["choices"][0]
        call = reply["message"]["tool_calls"][0]
        assert call["id"]
        assert (call["type"], call["function"]["name"]) == ("function", "look_up")
        assert call["function"]["arguments"].startswith("{")
        assert reply["message"]["content"] is None
        assert reply["finish_reason"] in ({"tool_calls"} if choice == "required" else {"tool_calls", "stop"})

    def test_a_custom_call_is_made(self, api: Api) -> None:
        message = api.completion(tools=[SHELL], tool_choice="required")["choices"][0]["message"]
        assert message["tool_calls"][0]["custom"]["name"] == "shell"

    def test_only_the_allowed_are_called(self, api: Api) -> None:
        allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [SHELL]}}
        message = api.completion(tools=[LOOK_UP, SHELL], tool_choice=allowed)["choices"][0]["message"]
        assert {call["type"] for call in message["tool_calls"]} == {"custom"}

    def test_none_means_no_call(self, api: Api) -> None:
        message = api.completion(tools=[LOOK_UP], tool_choice="none")["choices"][0]["message"]
        assert "tool_calls" not in message
        assert message["content"]

    def test_a_deprecated_function_is_called(self, api: Api) -> None:
        reply = api.completion(functions=[{"name": "f"}], function_call={"name": "f"})["choices"][0]
        assert reply["message"]["function_call"]["name"] == "f"
        assert reply["finish_reason"] in {"function_call", "stop"}

    def test_calls_are_streamed(self, api: Api) -> None:
        streamed = api.stream(tools=[LOOK_UP, SHELL], tool_choice="required")
        assert streamed.choices[0]["message"]["tool_calls"]
        assert streamed.frames[0]["choices"][0]["delta"]["content"] is None

    @pytest.mark.parametrize("fields", [strictly(STRICT_OBJECT), GOOD_FORMATS["json_object"]], ids=["schema", "object"])
    def test_json_is_written(self, api: Api, fields: dict[str, Any]) -> None:
        assert api.text(**fields).startswith("{")
