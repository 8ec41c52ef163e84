"""What an answer may look like: a request's wishes, a model's template, and promises that are checked."""

from __future__ import annotations

import logging
from typing import Any

import msgspec
import pytest

from chatport.backends.llama.calls import FORMATS, FormatName, format_of
from chatport.backends.llama.reader import Call
from chatport.backends.llama.shape import Shape, Shaper
from chatport.backends.llama.template import ChatTemplate
from chatport.backends.llama.vocabulary import Vocabulary
from chatport.wire.chat import ChatRequest
from chatport.wire.errors import InternalError, InvalidRequest
from support.gguf_files import CHATML
from support.vocabularies import model_of

CITY: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string", "minLength": 2}},
    "required": ["city"],
    "additionalProperties": False,
}
WEATHER = {"type": "function", "function": {"name": "get_weather", "parameters": CITY, "strict": True}}
STRICT = {"type": "json_schema", "json_schema": {"name": "city", "schema": CITY, "strict": True}}
THINKING = CHATML + "{% if add_generation_prompt %}{{ '<think>' if enable_thinking else '<think></think>' }}{% endif %}"


def shaper(source: str = CHATML, form: FormatName | None = None) -> Shaper:
    model = model_of("gpt2", b"<|im_start|>", b"[TOOL_CALLS]", types=[3, 3], chat_template=source)
    vocabulary = Vocabulary(model)
    return Shaper(ChatTemplate(model, vocabulary), vocabulary.control_id, system_prompt=None, form=form)


def shape(using: Shaper | None = None, **fields: Any) -> Shape:
    plain = {"model": "m", "messages": [{"role": "user", "content": "x"}], **fields}
    request = msgspec.json.decode(msgspec.json.encode(plain), type=ChatRequest)
    using = using or shaper()
    return using.shape(using.draft(request))


def made(name: str = "get_weather", text: str = '{"city": "Oslo"}', *, whole: bool = True) -> Call:
    return Call(name=name, custom=False, text=text, shown=True, whole=whole)


def test_plain_text_needs_nothing() -> None:
    plain = shape()
    assert not plain.must_count
    assert (plain.grammar, plain.preserved, plain.json) == (None, [], False)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        (
            {"response_format": {"json_schema": {"name": "n", "strict": True, "schema": {"pattern": "(?=x)"}}}},
            "response_format",
        ),
        (
            {"tools": [WEATHER, {"type": "function", "function": {"name": "f", "strict": True,
             "parameters": {"type": "object", "properties": {"a": {"pattern": "(?=x)"}}}}}]},
            "tools[1].function.parameters",
        ),
        (
            {"functions": [{"name": "f", "strict": True,
             "parameters": {"type": "object", "properties": {"a": {"pattern": "(?=x)"}}}}]},
            "functions[0].parameters",
        ),
        (
            {"tools": [{"type": "custom", "custom": {"name": "sql", "format": {"type": "grammar",
             "grammar": {"syntax": "lark", "definition": "start: missing"}}}}]},
            "tools[0].custom.format",
        ),
    ],
)  # fmt: skip
def test_what_can_not_be_held_is_refused_where_it_stands(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        shape(**fields)
    assert (refusal.value.param, refusal.value.code) == (param, "invalid_value")
    assert "look-around" in refusal.value.message or "missing" in refusal.value.message


@pytest.mark.parametrize(
    ("fields", "calls", "ended"),
    [
        ({}, [], "stop"),
        ({"tools": [WEATHER]}, [], "stop"),
        ({"tools": [WEATHER]}, [made()], "tool_calls"),
        ({"tools": [WEATHER], "tool_choice": "required"}, [made()], "tool_calls"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "get_weather"}}}, [made()],
         "stop"),
        ({"functions": [{"name": "get_weather"}]}, [made()], "function_call"),
    ],
)  # fmt: skip
def test_how_an_answer_ended(fields: dict[str, Any], calls: list[Call], ended: str) -> None:
    assert shape(**fields).ended(calls) == ended


@pytest.mark.parametrize(
    ("fields", "text", "calls", "fault"),
    [
        ({"response_format": {"type": "json_object"}}, "{}", [], None),
        ({"response_format": {"type": "json_object"}}, "{", [], "not JSON"),
        ({"response_format": STRICT}, '{"city": "Oslo"}', [], None),
        ({"response_format": STRICT}, '{"city": "O"}', [], "too short"),
        ({"tools": [WEATHER], "tool_choice": "required"}, "", [], "no tool was called"),
        ({"tools": [WEATHER]}, "Hello", [], None),
        ({"tools": [WEATHER]}, "", [made()], None),
        ({"tools": [WEATHER]}, "", [made(text='{"city": 1}')], "not of type"),
        ({"tools": [WEATHER]}, "", [made(text="{"), made()], "not JSON"),
        ({"tools": [WEATHER]}, "", [made(), made(text="{", whole=False)], "not whole"),
    ],
)
def test_promises_are_checked(
    caplog: pytest.LogCaptureFixture, fields: dict[str, Any], text: str, calls: list[Call], fault: str | None
) -> None:
    promised = shape(**fields)
    if fault is None:
        promised.check(text, calls)
        return
    with caplog.at_level(logging.ERROR), pytest.raises(InternalError):
        promised.check(text, calls)
    assert fault in caplog.text
    assert "%llguidance" in caplog.text, "the grammar stands beside it"


@pytest.mark.parametrize("spelled", ["<|im_start|>", 'a"\n<|im_start|>'])
def test_control_tokens_are_no_text_that_can_be_demanded(spelled: str) -> None:
    wishes: list[dict[str, Any]] = [{"enum": [spelled]}, {"properties": {spelled: {}}}, {"const": [{"a": spelled}]}]
    for demanded in wishes:
        with pytest.raises(InvalidRequest, match="can't write as text") as refusal:
            shape(response_format={"json_schema": {"name": "n", "schema": demanded}})
        assert refusal.value.param == "response_format"
    told = {"type": "object", "description": f"Like {spelled}"}
    assert shape(response_format={"json_schema": {"name": "n", "schema": told}}).grammar


@pytest.mark.parametrize("definition", ['start: "a" <[2]>', "%llguidance {}\nstart: A", 'start: "</custom_tool_call>"'])
def test_a_custom_grammar_steers_nothing_else(definition: str) -> None:
    form = {"type": "grammar", "grammar": {"syntax": "lark", "definition": definition}}
    with pytest.raises(InvalidRequest, match="may not hold") as refusal:
        shape(tools=[{"type": "custom", "custom": {"name": "x", "format": form}}])
    assert refusal.value.param == "tools[0].custom.format"


def test_a_prompt_may_have_begun_the_thought() -> None:
    using = shaper(THINKING)
    assert shape(using, reasoning_effort="high").reading.thinks_already
    assert not shape(using, reasoning_effort="none").reading.thinks_already
    assert shape(using).reading.thinking is not None
    assert shape(using).must_count
    assert shape(tools=[WEATHER]).must_count
    assert not shape(response_format=STRICT).must_count


def test_control_tokens_that_must_be_seen() -> None:
    tools = {"tools": [WEATHER]}
    assert shape(shaper(form="mistral"), **tools).preserved == ["[TOOL_CALLS]"]
    assert shape(shaper(form="hermes"), **tools).preserved == []
    assert "<[1]>" in (shape(shaper(form="mistral"), **tools).grammar or "")


@pytest.mark.parametrize("form", sorted({form.name for form in FORMATS}))
def test_every_form_holds_every_kind_of_wish(form: FormatName) -> None:
    held = shape(shaper(form=form), tools=[WEATHER], response_format=STRICT)
    assert held.grammar is not None
    assert held.reading.form is format_of("", "", form)
