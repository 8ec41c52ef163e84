"""What the scripted model says to a request."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatport.backends.scripted.script import Script, message_text, prompt_tokens, write
from chatport.wire.chat import Delta
from chatport.wire.errors import Unsupported
from support.backend_suite import ask


def say(text: str = "", reply: list[str] | None = None, limit: int | None = None, **fields: Any) -> Script:
    return write(ask(text, **fields), reply, limit)


def pieces(script: Script) -> list[str | None]:
    return [token.delta.content or "" for token in script.tokens]


def calls(script: Script) -> list[tuple[str, str]]:
    """Name and text of each call, joined."""
    made: dict[int, tuple[str, str]] = {}
    for token in script.tokens:
        for piece in token.delta.tool_calls or ():
            name, text = made.get(piece.index, ("", ""))
            body = piece.function or piece.custom
            assert body
            made[piece.index] = (name + (body.name or ""), text + _text(body))
    return list(made.values())


def _text(body: Any) -> str:
    return (getattr(body, "arguments", "") or "") + (getattr(body, "input", "") or "")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("one two  three\n", ["one", " two", "  three", "\n"]),
        ("", []),
        ("   ", ["   "]),
        ("写一首诗", ["写一首诗"]),
        ("a\x00b", ["a\x00b"]),
    ],
)
def test_the_echo_is_split_in_words(text: str, said: list[str]) -> None:
    script = say(text)
    assert (pieces(script), script.spent, script.finish) == (said, len(said), "stop")


def test_the_echo_is_of_the_last_user_text() -> None:
    messages = [
        {"role": "user", "content": "first"},
        {"role": "user", "content": [{"type": "text", "text": "second "}, {"type": "text", "text": "part"}]},
        {"role": "assistant", "content": "answer"},
    ]
    assert pieces(say(messages=messages)) == ["second", " part"]
    assert pieces(say(messages=messages[2:])) == []


def test_what_is_no_text_is_named() -> None:
    image = {"type": "image_url", "image_url": {"url": "https://a.example"}}
    request = ask(messages=[{"role": "user", "content": [{"type": "text", "text": "See "}, image]}])
    assert message_text(request.messages[0]) == "See [image_url]"


def test_the_prompt_is_counted_in_words_and_messages() -> None:
    messages = [
        {"role": "system", "content": "a b"},
        {"role": "user", "content": ""},
        {"role": "assistant", "refusal": "x"},
    ]
    assert prompt_tokens(ask(messages=messages)) == 5


@pytest.mark.parametrize(
    ("limit", "said", "finish"),
    [(None, "ab", "stop"), (3, "ab", "stop"), (2, "ab", "stop"), (1, "a", "length"), (0, "", "length")],
)
def test_the_limit_counts_pieces(limit: int | None, said: str, finish: str) -> None:
    script = say("", ["a", "b"], limit)
    assert ("".join(map(str, pieces(script))), script.finish, script.spent) == (said, finish, len(said))


def test_nothing_to_say_and_nothing_allowed_is_length() -> None:
    assert say("", None, 0).finish == "length"
    assert say("", None, None).finish == "stop"


@pytest.mark.parametrize(
    ("stop", "said", "spent", "finish"),
    [
        ("cd", ["ab"], 2, "stop"),
        ("bc", ["a"], 2, "stop"),
        ("ab", [], 1, "stop"),
        ("bcde", ["a"], 3, "stop"),
        (["zz", "d"], ["ab", "c"], 2, "stop"),
        (["bcde", "c"], ["ab"], 2, "stop"),
        (["", "zz"], ["ab", "cd", "ef"], 3, "stop"),
        ("abcdefg", ["ab", "cd", "ef"], 3, "stop"),
    ],
)
def test_stop_sequences(stop: Any, said: list[str], spent: int, finish: str) -> None:
    script = say("", ["ab", "cd", "ef"], None, stop=stop)
    assert (pieces(script), script.spent, script.finish) == (said, spent, finish)


def test_a_stop_sequence_beyond_the_limit_is_not_seen() -> None:
    script = say("", ["ab", "cd", "ef"], 2, stop="e")
    assert (pieces(script), script.spent, script.finish) == (["ab", "cd"], 2, "length")


@given(
    reply=st.lists(st.text("ab", min_size=1, max_size=3), max_size=6),
    stops=st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3),
    limit=st.none() | st.integers(0, 6),
)
def test_stop_sequences_never_leak(reply: list[str], stops: list[str], limit: int | None) -> None:
    script = say("", reply, limit, stop=stops)
    said = "".join(map(str, pieces(script)))
    assert "".join(reply).startswith(said)
    assert not any(stop in said for stop in stops)
    assert len(script.tokens) <= script.spent <= len(reply)


@pytest.mark.parametrize("top", [0, 1, 20])
def test_logprobs_are_one_item_a_piece(top: int) -> None:
    script = say("é b", None, None, logprobs=True, top_logprobs=top)
    items = [token.logprobs.content[0] for token in script.tokens if token.logprobs and token.logprobs.content]
    assert [(item.token, bytes(item.bytes or ())) for item in items] == [("é", "é".encode()), (" b", b" b")]
    for item in items:
        tokens = [other.token for other in item.top_logprobs]
        assert len(tokens) == len(set(tokens)) == top
        assert tokens[:1] == [item.token][:top]
    assert all(token.logprobs is None for token in say("a b").tokens)


# --- calls -----------------------------------------------------------------------------------------------------------

CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}


def function(name: str, **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **more}}


def custom(name: str, **more: Any) -> dict[str, Any]:
    return {"type": "custom", "custom": {"name": name, **more}}


OFFERED = [function("weather", parameters=CITY), function("get_time"), custom("shell")]
WEATHER = ("weather", '{"city": ""}')
TIME = ("get_time", "{}")


@pytest.mark.parametrize(
    ("text", "choice", "made"),
    [
        ("hello", None, []),
        ("hello", "auto", []),
        ("hello", "none", []),
        ("call weather", "none", []),
        ("call weather", "auto", [WEATHER]),
        ("get_time, then weather!", None, [WEATHER, TIME]),
        ("the weathercock", "auto", []),
        ("hello", "required", [WEATHER]),
        ("get_time", "required", [TIME]),
        ("weather", {"type": "function", "function": {"name": "get_time"}}, [TIME]),
        ("ls -l", {"type": "custom", "custom": {"name": "shell"}}, [("shell", "ls -l")]),
        ("x", {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [OFFERED[1]]}}, [TIME]),
        ("weather", {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [OFFERED[1]]}}, []),
    ],
)
def test_which_tools_are_called(text: str, choice: Any, made: list[tuple[str, str]]) -> None:
    script = say(text, None, None, tools=OFFERED, **({} if choice is None else {"tool_choice": choice}))
    assert calls(script) == made
    forced = isinstance(choice, dict) and choice["type"] != "allowed_tools"
    assert script.finish == ("tool_calls" if made and not forced else "stop")
    assert script.spent == len(script.tokens)


def test_at_most_one_call_where_they_may_not_be_parallel() -> None:
    assert calls(say("weather get_time", None, None, tools=OFFERED, parallel_tool_calls=False)) == [WEATHER]


def test_an_answered_call_is_not_made_again() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "get_time", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "get_time"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "noon"},
    ]
    assert pieces(say(messages=messages, tools=OFFERED)) == ["get_time"]


def test_a_call_that_was_cut_is_returned_as_far_as_it_went() -> None:
    script = say("weather", None, 2, tools=OFFERED)
    assert (calls(script), script.finish, script.spent) == ([("weather", '{"city":')], "length", 2)
    assert say("weather", None, 0, tools=OFFERED) == Script([], 0, "length")


@pytest.mark.parametrize("choice", [None, "auto", {"name": "f"}])
def test_functions_are_called(choice: Any) -> None:
    fields = {} if choice is None else {"function_call": choice}
    script = say("f", None, None, functions=[{"name": "g"}, {"name": "f", "parameters": CITY}], **fields)
    said = [token.delta.function_call for token in script.tokens]
    assert said[0] == Delta(function_call=said[0]).function_call
    assert "".join(piece.arguments or "" for piece in said if piece) == '{"city": ""}'
    assert script.finish == "function_call"


@pytest.mark.parametrize("fields", [{"function_call": "none"}, {}])
def test_functions_are_not_called_unasked(fields: dict[str, Any]) -> None:
    text = "f" if fields else "hello"
    assert pieces(say(text, None, None, functions=[{"name": "f"}], **fields)) == [text]


def test_a_custom_call_keeps_to_its_regex() -> None:
    tool = custom("s", format={"type": "grammar", "grammar": {"syntax": "regex", "definition": "[0-9]{3}"}})
    assert calls(say("x", None, None, tools=[tool], tool_choice="required")) == [("s", "000")]


BEYOND = {**CITY, "properties": {"city": {"type": "string", "pattern": "(?=x)"}}}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        (
            {"tools": [OFFERED[1], function("f", strict=True, parameters=BEYOND)], "tool_choice": "required"},
            "tools[1].function.parameters",
        ),
        (
            {"tools": [custom("f", format={"type": "grammar", "grammar": {"syntax": "lark", "definition": "x"}})]},
            "tools[0].custom.format",
        ),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "s", "strict": True, "schema": BEYOND},
                }
            },
            "response_format",
        ),
    ],
)
def test_what_it_cannot_write_it_refuses_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(Unsupported) as refusal:
        say("f", None, None, **fields)
    assert (refusal.value.param, refusal.value.code) == (param, "unsupported_value")
    assert param in refusal.value.message


# --- JSON ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("response_format", "reply", "said"),
    [
        ({"type": "json_object"}, None, "{}"),
        ({"type": "json_object"}, ["Hello"], "{}"),
        ({"type": "json_object"}, ["[1]"], "{}"),
        ({"type": "json_object"}, ['{"a"', ": 1}"], '{"a": 1}'),
        ({"json_schema": {"name": "s"}}, None, "{}"),
        ({"json_schema": {"name": "s", "schema": CITY, "strict": True}}, None, '{"city": ""}'),
        ({"json_schema": {"name": "s", "schema": BEYOND}}, None, "{}"),
        ({"json_schema": {"name": "s", "schema": {}}}, None, "{}"),
        ({"json_schema": {"name": "s", "schema": {"type": "array"}}}, None, "{}"),
        ({}, ["Hello"], "Hello"),
    ],
)
def test_json_is_written_where_it_is_asked_for(response_format: Any, reply: list[str] | None, said: str) -> None:
    assert "".join(map(str, pieces(say("json", reply, None, response_format=response_format)))) == said


def test_json_is_cut_like_any_text() -> None:
    script = say("json", None, 1, response_format={"json_schema": {"name": "s", "schema": CITY}})
    assert (pieces(script), script.finish) == (['{"city":'], "length")


def test_a_schema_keeps_its_letters() -> None:
    schema = {"type": "object", "properties": {"stadt": {"const": "Zürich"}}, "required": ["stadt"]}
    said = "".join(
        map(str, pieces(say("json", None, None, response_format={"json_schema": {"name": "s", "schema": schema}})))
    )
    assert json.loads(said) == {"stadt": "Zürich"}
    assert "Zürich" in said
