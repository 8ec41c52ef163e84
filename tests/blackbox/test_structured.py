"""Calls and JSON by the embedded model, over a real port: a model of this size says nonsense, but always in form."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from support.asking import Api, joined_logprobs
from support.stream_rules import check_same_answer

CITY: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"enum": ["Oslo", "北京", "Paris"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
    },
    "required": ["days", "city"],
    "additionalProperties": False,
}
WEATHER = {"type": "function", "function": {"name": "get_weather", "parameters": CITY, "strict": True}}
NOW = {"type": "function", "function": {"name": "now"}}
SHELL = {"type": "custom", "custom": {"name": "shell"}}
DIAL = {
    "type": "custom",
    "custom": {"name": "dial", "format": {"type": "grammar", "grammar": {"syntax": "regex", "definition": "[0-9]{3}"}}},
}
SELECT = {
    "type": "custom",
    "custom": {
        "name": "sql",
        "format": {
            "type": "grammar",
            "grammar": {"syntax": "lark", "definition": 'start: "SELECT " NAME\nNAME: /[a-z]{1,9}/'},
        },
    },
}
STRICT = {"type": "json_schema", "json_schema": {"name": "city", "schema": CITY, "strict": True}}
MESSAGES = [{"role": "user", "content": "What will the weather be like in Paris in 3 days? Answer in JSON."}]
BASE: dict[str, Any] = {"model": "gpt-4", "messages": MESSAGES, "max_tokens": 120}


def named(name: str, kind: str = "function") -> dict[str, Any]:
    return {"type": kind, kind: {"name": name}}


def allowed(mode: str, *tools: dict[str, Any]) -> dict[str, Any]:
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": list(tools)}}


FORCED: dict[str, dict[str, Any]] = {
    "required": {"tools": [WEATHER], "tool_choice": "required"},
    "one of two": {"tools": [WEATHER, NOW], "tool_choice": "required", "parallel_tool_calls": False},
    "named": {"tools": [NOW, WEATHER], "tool_choice": named("get_weather")},
    "allowed": {"tools": [NOW, WEATHER], "tool_choice": allowed("required", named("get_weather"))},
    "custom": {"tools": [SHELL], "tool_choice": "required"},
    "regex": {"tools": [DIAL, WEATHER], "tool_choice": named("dial", "custom")},
    "lark": {"tools": [SELECT], "tool_choice": "required"},
}


def check_call(call: dict[str, Any]) -> None:
    if call["type"] == "custom":
        text = call["custom"]["input"]
        match call["custom"]["name"]:
            case "dial":
                assert text.isdigit()
                assert len(text) == 3
            case "sql":
                assert text.startswith("SELECT ")
        return
    arguments = json.loads(call["function"]["arguments"])
    jsonschema.validate(arguments, CITY if call["function"]["name"] == "get_weather" else {"maxProperties": 0})


class TestCalls:
    @pytest.mark.parametrize("fields", FORCED.values(), ids=FORCED)
    def test_forced_ones_are_made_and_fit(self, model: Api, fields: dict[str, Any]) -> None:
        whole = model.completion(**BASE, **fields, temperature=0)
        check_same_answer(model.stream(**BASE, **fields, temperature=0).frames, whole)
        rolled = model.completion(**BASE, **fields)
        for reply in (whole["choices"][0], rolled["choices"][0]):
            calls = reply["message"]["tool_calls"]
            assert reply["message"]["content"] is None
            if reply["finish_reason"] == "length":
                calls = calls[:-1]
            else:
                assert reply["finish_reason"] in {"tool_calls", "stop"}
            for call in calls:
                check_call(call)

    def test_one_where_only_one_is_wanted(self, model: Api) -> None:
        for fields in (FORCED["named"], FORCED["one of two"]):
            assert len(model.completion(**BASE, **fields)["choices"][0]["message"]["tool_calls"]) == 1

    def test_none(self, model: Api) -> None:
        message = model.completion(**BASE, tools=[WEATHER], tool_choice="none")["choices"][0]["message"]
        assert "tool_calls" not in message

    def test_a_model_that_may_call_answers_or_calls(self, model: Api) -> None:
        for choice in ("auto", allowed("auto", named("get_weather"))):
            streamed = model.stream(**BASE, tools=[WEATHER, NOW], tool_choice=choice)
            reply = streamed.choices[0]
            assert reply["message"]["content"] or reply["message"]["tool_calls"]

    def test_a_model_that_is_shown_a_call_makes_it(self, model: Api) -> None:
        """What it has just read it repeats: so text and a call are seen in one answer, without forcing it."""
        said = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'
        turns = [{"role": "user", "content": "now"}, {"role": "assistant", "content": said}] * 4
        fields = BASE | {"messages": [*turns, turns[0]], "tools": [NOW], "temperature": 0}
        reply = model.completion(**fields)["choices"][0]
        assert [call["function"] for call in reply["message"]["tool_calls"]] == [{"name": "now", "arguments": "{}"}]
        assert (reply["finish_reason"], reply["message"]["content"]) == ("tool_calls", None)
        check_same_answer(model.stream(**fields).frames, model.completion(**fields))

    def test_rounds(self, model: Api) -> None:
        """A call, its result, an answer; calls in the history need no tools any more."""
        reply = model.completion(**BASE, **FORCED["named"], temperature=0)["choices"][0]["message"]
        result = {"role": "tool", "tool_call_id": reply["tool_calls"][0]["id"], "content": "Rain, 7 degrees"}
        for tools in ({"tools": [WEATHER]}, {}):
            after = model.completion(**BASE | {"messages": [*MESSAGES, reply, result], "max_tokens": 16}, **tools)
            assert after["usage"]["prompt_tokens"] > 60

    def test_a_cut_call_is_told_as_far_as_it_went(self, model: Api) -> None:
        streamed = model.stream(**BASE | {"max_tokens": 18}, **FORCED["named"], temperature=0)
        reply = streamed.choices[0]
        assert reply["finish_reason"] == "length"
        arguments = reply["message"]["tool_calls"][0]["function"]["arguments"]
        assert arguments.startswith('{"')
        with pytest.raises(ValueError, match=r"JSON|Expecting|Unterminated|delimiter"):
            json.loads(arguments)

    def test_the_deprecated_spelling(self, model: Api) -> None:
        fields = {"functions": [WEATHER["function"]], "function_call": {"name": "get_weather"}, "temperature": 0}
        reply = model.completion(**BASE, **fields)
        assert reply["choices"][0]["finish_reason"] == "function_call"
        call = reply["choices"][0]["message"]["function_call"]
        jsonschema.validate(json.loads(call["arguments"]), CITY)
        check_same_answer(model.stream(**BASE, **fields).frames, reply)

    def test_every_choice_makes_its_own(self, model: Api) -> None:
        choices = model.completion(**BASE, **FORCED["named"], n=3)["choices"]
        ids = [choice["message"]["tool_calls"][0]["id"] for choice in choices]
        assert len(set(ids)) == 3

    def test_logprobs_are_of_the_text(self, model: Api) -> None:
        choice = model.completion(**BASE, **FORCED["named"], logprobs=True)["choices"][0]
        assert choice["message"]["tool_calls"]
        assert choice["logprobs"] is None or not choice["logprobs"]["content"]


class TestJSON:
    @pytest.mark.parametrize("temperature", [0, 1])
    def test_a_schema_is_held(self, model: Api, temperature: int) -> None:
        reply = model.completion(**BASE, response_format=STRICT, temperature=temperature)["choices"][0]
        value = json.loads(reply["message"]["content"])
        jsonschema.validate(value, CITY)
        assert list(value) == ["city", "days"], "in the order of the properties"
        assert reply["finish_reason"] == "stop"

    def test_streamed_or_not(self, model: Api) -> None:
        fields = {**BASE, "response_format": STRICT, "temperature": 0}
        check_same_answer(model.stream(**fields).frames, model.completion(**fields))

    def test_an_object(self, model: Api) -> None:
        reply = model.completion(**BASE | {"max_tokens": 400}, response_format={"type": "json_object"}, temperature=0)
        if reply["choices"][0]["finish_reason"] == "stop":
            assert isinstance(json.loads(reply["choices"][0]["message"]["content"]), dict)
        else:
            assert reply["choices"][0]["message"]["content"].startswith("{")

    def test_a_schema_that_is_not_promised_is_held_as_far_as_it_can_be(self, model: Api) -> None:
        schema = {**CITY, "properties": {**CITY["properties"], "city": {"type": "string", "pattern": "^(?=P)Paris$"}}}
        form = {"type": "json_schema", "json_schema": {"name": "city", "schema": schema}}
        value = json.loads(model.text(**BASE, response_format=form, temperature=0))
        assert 1 <= value["days"] <= 9

    def test_a_promise_that_can_not_be_kept_is_refused(self, model: Api) -> None:
        schema = {**CITY, "properties": {**CITY["properties"], "city": {"type": "string", "pattern": "^(?=P)Paris$"}}}
        form = {"type": "json_schema", "json_schema": {"name": "city", "schema": schema, "strict": True}}
        refused = model.refusal(**BASE, response_format=form)
        assert (refused.status, refused.param, refused.code) == (400, "response_format", "invalid_value")
        assert "look-ahead" in refused.message

    def test_logprobs_of_characters_that_are_several_tokens(self, model: Api) -> None:
        """Under a grammar an answer can't be taken up in its middle, where the engine leaves items out."""
        schema = {"type": "object", "properties": {"a": {"const": "北京🎉 ok"}, "b": {"const": "é🦙"}},
                  "required": ["a", "b"], "additionalProperties": False}  # fmt: skip
        form = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema, "strict": True}}
        fields = {**BASE, "response_format": form, "temperature": 0, "logprobs": True, "top_logprobs": 2}
        reply = model.completion(**fields)
        choice = reply["choices"][0]
        assert json.loads(choice["message"]["content"]) == {"a": "北京🎉 ok", "b": "é🦙"}
        items = choice["logprobs"]["content"]
        assert joined_logprobs(items) == choice["message"]["content"]
        assert len(items) in (reply["usage"]["completion_tokens"], reply["usage"]["completion_tokens"] - 1)
        check_same_answer(model.stream(**fields).frames, reply)

    def test_a_stop_sequence_breaks_it_off_and_no_promise_with_it(self, model: Api) -> None:
        reply = model.completion(**BASE, response_format=STRICT, stop=["days"], temperature=0)["choices"][0]
        assert reply["finish_reason"] == "stop"
        assert "days" not in reply["message"]["content"]

    def test_json_or_a_call(self, model: Api) -> None:
        reply = model.completion(**BASE, response_format=STRICT, tools=[WEATHER])["choices"][0]["message"]
        said = reply["content"] or reply["tool_calls"][0]["function"]["arguments"]
        jsonschema.validate(json.loads(said), CITY)


class TestHostileGrammars:
    """What would overflow the compiler's stack, never end, or end the model's turn is refused, and nobody notices."""

    @pytest.mark.parametrize(
        ("syntax", "definition"),
        [
            ("lark", "start: r0\n" + "\n".join(f'r{i}: "x" r{i + 1}' for i in range(200)) + "\nr200: missing"),
            ("lark", "start: T\nT: " + " & ".join(f"/(?s:.*[^{c}]{{5}}.*{c}.{{30}})/" for c in "abcdef")),
            ("lark", 'start: "a" <[2]>'),
            ("regex", "(?=a)b"),
        ],
        ids=["long", "wide", "token", "look-around"],
    )
    def test_are_refused(self, model: Api, syntax: str, definition: str) -> None:
        form = {"type": "grammar", "grammar": {"syntax": syntax, "definition": definition}}
        tools = [{"type": "custom", "custom": {"name": "x", "format": form}}]
        refused = model.refusal(**BASE, tools=tools, tool_choice="required")
        assert refused.status == 400
        assert (refused.param or "").startswith("tools[0].custom.format")
        assert model.completion(**BASE | {"max_tokens": 1})

    def test_references_without_end(self, model: Api) -> None:
        defs = {f"d{i}": {"type": "object", "properties": {"a": {"$ref": f"#/$defs/d{i + 1}"}}} for i in range(300)}
        schema = {"type": "object", "properties": {"a": {"$ref": "#/$defs/d0"}}, "$defs": {**defs, "d300": {}}}
        form = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
        reply = model.post({**BASE, "response_format": form, "max_tokens": 4})
        assert reply.status_code in (200, 400), reply.text
        assert model.completion(**BASE | {"max_tokens": 1})

    def test_control_tokens_can_not_be_demanded(self, model: Api) -> None:
        schema = {**CITY, "properties": {**CITY["properties"], "city": {"enum": ["<|im_end|>"]}}}
        form = {"type": "json_schema", "json_schema": {"name": "city", "schema": schema, "strict": True}}
        refused = model.refusal(**BASE, response_format=form)
        assert (refused.status, refused.param, refused.code) == (400, "response_format", "invalid_value")
