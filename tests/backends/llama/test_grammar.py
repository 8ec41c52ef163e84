"""Grammars: what they let a model say, judged by the library that the engine has inside."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from llguidance import LLMatcher, LLTokenizer

from chatport.backends.llama.calls import FORMATS, OURS, CallFormat, custom_call, format_of
from chatport.backends.llama.compiler import compiled
from chatport.backends.llama.grammar import Callee, Demand, grammar_of
from chatport.backends.llama.reasoning import MARKS
from chatport.backends.llama.schemas import NOTHING, OBJECT, guided
from chatport.wire.chat import Grammar

BYTES = LLTokenizer("byte")
CITY = guided(
    b'{"type": "object", "properties": {"city": {"enum": ["Oslo", "Rome"]}}, "required": ["city"]}', strict=False
)
WEATHER = Callee("get_weather", CITY)
NOW = Callee("now", guided(NOTHING, strict=False))
SHELL = Callee("shell")
DIGITS = Callee("dial", grammar=Grammar("regex", "[0-9]{3}/[0-9]+"))
SELECT = Callee("sql", grammar=Grammar("lark", 'start: "SELECT " NAME\nNAME: /[a-z]+/'))
JSON = guided(OBJECT, strict=False)
FORMS = pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
MISTRAL = format_of("", "", "mistral")
TRIGGERED = pytest.mark.parametrize("form", [OURS, MISTRAL], ids=["chatport", "mistral"])


def says(text: str, form: CallFormat = OURS, **demand: Any) -> str:
    """`whole`: an answer may be just this; `part`: it may begin so; `no`."""
    grammar = grammar_of(Demand(**demand), form, lambda _: None)
    assert grammar is not None
    matcher = LLMatcher(BYTES, grammar)
    assert not matcher.is_error(), matcher.get_error()
    tokens = BYTES.tokenize_str(text)
    if matcher.try_consume_tokens(tokens) < len(tokens):
        return "no"
    return "whole" if matcher.is_accepting() else "part"


def oslo(form: CallFormat = OURS) -> str:
    return form.written("get_weather", '{"city": "Oslo"}')


def test_what_demands_nothing_has_no_grammar() -> None:
    assert grammar_of(Demand(), OURS, lambda _: None) is None
    assert grammar_of(Demand(thinking=MARKS[0]), OURS, lambda _: None) is None


@FORMS
def test_every_demand_compiles(form: CallFormat) -> None:
    offers: tuple[list[Callee], ...] = ([], [WEATHER], [WEATHER, NOW], [SHELL], [WEATHER, SHELL, DIGITS, SELECT])
    yes_no = (False, True)
    for tools, must, several, schema, thinking, already, token in itertools.product(
        offers, yes_no, yes_no, (None, JSON), (None, MARKS[0]), yes_no, (None, 5)
    ):
        demand = Demand(
            tools=tools,
            must_call=must and bool(tools),
            several=several,
            schema=schema,
            thinking=thinking,
            thinks_already=already,
        )
        grammar = grammar_of(demand, form, lambda _, token=token: token)  # type: ignore[misc]
        if grammar is not None:
            compiled(grammar)


@FORMS
def test_a_tool_that_may_be_called(form: CallFormat) -> None:
    offer: dict[str, Any] = {"tools": [WEATHER, NOW], "several": True}
    assert says("It is sunny. Or {so}.", form, **offer) == "whole"
    assert says(oslo(form), form, **offer) == "whole"
    assert says(form.written("now", "{}"), form, **offer) == "whole"
    assert says(form.written("later", "{}"), form, **offer) == "no", "nobody offered that"
    assert says(form.written("get_weather", '{"city": "Bonn"}'), form, **offer) == "no"
    assert says(oslo(form)[: -len(form.closes) - 3], form, **offer) == "part", "a call is whole or not at all"
    assert says(oslo(form) + " and so on", form, **offer) == "whole", "the reader ends the turn, not the grammar"


@TRIGGERED
def test_a_call_in_running_text(form: CallFormat) -> None:
    offer: dict[str, Any] = {"tools": [WEATHER], "several": True}
    assert says(f"I will look. {oslo(form)}", form, **offer) == "whole"
    assert says(f"I will look. {form.trigger}Hm", form, **offer) == "no"
    assert says(f"{oslo(form)}\n{oslo(form)}", form, **offer) == "whole"
    assert says(f"{oslo(form)}\n{form.trigger}Hm", form, **offer) == "no"


@FORMS
def test_a_tool_that_must_be_called(form: CallFormat) -> None:
    demand: dict[str, Any] = {"tools": [WEATHER], "must_call": True}
    assert says(oslo(form), form, **demand) == "whole"
    assert says("It is", form, **demand) == "no"
    assert says(oslo(form) + "\n", form, **demand) == "no", "one call, and that is the end"


def test_several_calls_in_one_list() -> None:
    form = MISTRAL
    call = '{"name": "now", "arguments": {}}'
    both = f"[TOOL_CALLS][{call}, {call}]"
    assert says(both, form, tools=[NOW], must_call=True, several=True) == "whole"
    assert says(both, form, tools=[NOW], must_call=True) == "no"


@FORMS
def test_custom_tools(form: CallFormat) -> None:
    demand: dict[str, Any] = {"tools": [SHELL, DIGITS, SELECT], "must_call": True}
    assert says(custom_call("shell", "ls | wc -l\n# </custom"), form, **demand) == "whole"
    assert says(custom_call("dial", "123/4"), form, **demand) == "whole"
    assert says(custom_call("dial", "12/4"), form, **demand) == "no"
    assert says(custom_call("sql", "SELECT users"), form, **demand) == "whole"
    assert says(custom_call("sql", "DROP users"), form, **demand) == "no"


def test_json_and_nothing_else() -> None:
    assert says('{"a": [1, {"b": null}]}', schema=JSON) == "whole"
    assert says('{"a": 1', schema=JSON) == "part"
    assert says('{"a":  1', schema=JSON) == "no", "no white space to get lost in"
    assert says("Sure: {", schema=JSON) == "no"
    assert says("[1]", schema=JSON) == "no"


def test_json_or_a_call() -> None:
    offer: dict[str, Any] = {"tools": [WEATHER], "schema": CITY}
    assert says('{"city": "Rome"}', **offer) == "whole"
    assert says(oslo(), **offer) == "whole"
    assert says("Hello", **offer) == "no"


@pytest.mark.parametrize("already", [False, True])
def test_thoughts_come_first_and_are_free(already: bool) -> None:
    thinking: dict[str, Any] = {"thinking": MARKS[0], "thinks_already": already, "schema": CITY}
    opened = "" if already else "<think>"
    assert says(f"{opened}\nWhere? {oslo()} </think>\n\n" + '{"city": "Rome"}', **thinking) == "whole"
    assert says(f"{opened}Where?</think>Rome", **thinking) == "no"
    assert says(f"{opened}Where?", **thinking) == "part"
    assert says('{"city": "Rome"}', **thinking) == ("part" if already else "whole")


def test_a_call_after_a_thought() -> None:
    offer: dict[str, Any] = {"tools": [WEATHER], "thinking": MARKS[0]}
    assert says(f"<think>hm {OURS.trigger} hm</think>\n\nWell. {oslo()}", **offer) == "whole"
    assert says(f"<think>hm</think>{OURS.trigger}Hm", **offer) == "no"
    assert says("Well, without a thought.", **offer) == "whole"
    assert says(f"Well. {oslo()}", **offer) == "whole"


def test_a_trigger_that_is_a_control_token() -> None:
    grammar = grammar_of(Demand(tools=[NOW], must_call=True), MISTRAL, lambda _: 9)
    assert grammar is not None
    assert "trigger_function: <[9]>" in grammar
    assert "[TOOL_CALLS]" not in grammar
