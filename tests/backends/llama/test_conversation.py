"""Messages and tools as templates are given them, where they know tools and where they do not."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from chatport.backends.llama.calls import FORMATS, OURS
from chatport.backends.llama.conversation import Abilities, Conversation, converse
from chatport.wire.chat import ChatRequest
from chatport.wire.tools import offer_of

WEATHER = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}
NATIVE = Abilities(tools=True)


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def called(*ids: str, arguments: str = '{"city": "Oslo"}') -> dict[str, Any]:
    function = {"name": "get_weather", "arguments": arguments}
    calls = [{"id": call, "type": "function", "function": function} for call in ids]
    return {"role": "assistant", "content": "Wait.", "tool_calls": calls}


def result(call: str, text: str = "rain") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call, "content": text}


def conversation(
    *messages: dict[str, Any], abilities: Abilities = NATIVE, system: str | None = None, **fields: Any
) -> Conversation:
    plain = {"model": "m", "messages": messages, **fields}
    request = msgspec.json.decode(msgspec.json.encode(plain), type=ChatRequest)
    return converse(request, offer_of(request), OURS, abilities, system)


def contents(found: Conversation) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in found.messages]


class TestATemplateThatKnowsTools:
    def test_is_given_them(self) -> None:
        found = conversation(user("x"), tools=[WEATHER])
        assert found.messages == [user("x")]
        assert found.tools == [{"type": "function", "function": {"description": "", **WEATHER["function"]}}]  # type: ignore[dict-item]

    def test_not_those_that_may_not_be_called(self) -> None:
        assert conversation(user("x"), tools=[WEATHER], tool_choice="none").tools is None

    def test_calls_and_their_results(self) -> None:
        found = conversation(user("x"), called("call_abc"), result("call_abc"))
        _, assistant, tool = found.messages
        function = {"name": "get_weather", "arguments": {"city": "Oslo"}}
        assert assistant["tool_calls"] == [{"id": "call00000", "type": "function", "function": function}]
        assert tool == {"role": "tool", "name": "get_weather", "content": "rain", "tool_call_id": "call00000"}

    @pytest.mark.parametrize("arguments", ["{cut", "[1]", '"text"'])
    def test_arguments_that_are_no_object_stay_text(self, arguments: str) -> None:
        found = conversation(user("x"), called("a", arguments=arguments), result("a"))
        assert found.messages[1]["tool_calls"][0]["function"]["arguments"] == arguments

    def test_arguments_as_text_where_it_wants_that(self) -> None:
        found = conversation(user("x"), called("a"), result("a"), abilities=Abilities(tools=True, objects=False))
        assert found.messages[1]["tool_calls"][0]["function"]["arguments"] == '{"city": "Oslo"}'

    def test_one_call_a_message_where_it_takes_no_more(self) -> None:
        found = conversation(
            user("x"), called("a", "b"), result("a"), result("b"), abilities=Abilities(tools=True, several=False)
        )
        assert [len(message.get("tool_calls", ())) for message in found.messages] == [0, 1, 1, 0, 0]
        assert [message["content"] for message in found.messages[1:3]] == ["Wait.", ""]

    def test_the_deprecated_spelling(self) -> None:
        call = {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}}
        found = conversation(user("x"), call, {"role": "function", "name": "f", "content": "42"})
        assert found.messages[1]["tool_calls"][0]["function"] == {"name": "f", "arguments": {}}
        assert (found.messages[2]["role"], found.messages[2]["name"]) == ("tool", "f")

    def test_thoughts_come_back_under_one_name(self) -> None:
        for key in ("reasoning_content", "reasoning"):
            found = conversation(user("x"), {"role": "assistant", "content": "y", key: "why"})
            assert found.messages[1] == {"role": "assistant", "content": "y", "reasoning_content": "why"}


class TestATemplateThatDoesNot:
    def test_is_told_in_the_system_message(self) -> None:
        found = conversation(user("x"), tools=[WEATHER], abilities=Abilities(), system="Help.")
        assert found.tools is None
        system = found.messages[0]["content"]
        assert system.startswith("Help.\n\n# Tools")
        assert '"name": "get_weather"' in system
        assert OURS.written("NAME", '{"ARGUMENT": VALUE}') in system
        told = conversation({"role": "developer", "content": "Be brief."}, tools=[WEATHER], abilities=Abilities())
        assert told.messages[0]["content"].startswith("Be brief.\n\n# Tools")

    def test_calls_are_what_the_assistant_says_and_results_what_the_user_does(self) -> None:
        found = conversation(
            user("x"), called("a", "b"), result("a", "rain"), result("b", "sun"), user("And?"), abilities=Abilities()
        )
        call = OURS.written("get_weather", '{"city": "Oslo"}')
        assert contents(found) == [
            ("user", "x"),
            ("assistant", f"Wait.\n{call}\n{call}"),
            ("user", "<tool_response>\nrain\n</tool_response>\n<tool_response>\nsun\n</tool_response>\nAnd?"),
        ]

    def test_results_at_the_end_are_there_too(self) -> None:
        found = conversation(user("x"), called("a"), result("a"), abilities=Abilities())
        assert contents(found)[-1] == ("user", "<tool_response>\nrain\n</tool_response>")


SQL = {"type": "custom", "custom": {"name": "sql", "description": "A database"}}


class TestATemplateOfAnotherTime:
    def test_that_knows_no_system_messages(self) -> None:
        found = conversation(
            {"role": "system", "content": "Help."},
            {"role": "developer", "content": "Be brief."},
            user("x"),
            {"role": "assistant", "content": "y"},
            user("z"),
            abilities=Abilities(system=False),
        )
        assert contents(found) == [("user", "Help.\n\nBe brief.\n\nx"), ("assistant", "y"), ("user", "z")]
        alone = conversation({"role": "system", "content": "Help."}, abilities=Abilities(system=False))
        assert contents(alone) == [("user", "Help.")]

    def test_that_wants_parts(self) -> None:
        found = conversation(user("x"), abilities=Abilities(parts=True), system="Help.")
        assert found.messages == [
            {"role": "system", "content": [{"type": "text", "text": "Help."}]},
            {"role": "user", "content": [{"type": "text", "text": "x"}]},
        ]


class TestCustomTools:
    def test_no_template_knows_them(self) -> None:
        found = conversation(user("x"), tools=[SQL, WEATHER])
        assert found.tools is None
        assert "- sql: A database" in found.messages[0]["content"]
        assert "get_weather" in found.messages[0]["content"]

    def test_their_grammar_is_shown(self) -> None:
        form = {"type": "grammar", "grammar": {"syntax": "regex", "definition": "[0-9]+"}}
        found = conversation(user("x"), tools=[{"type": "custom", "custom": {"name": "dial", "format": form}}])
        assert "regex grammar:\n[0-9]+" in found.messages[0]["content"]

    def test_calls_of_them_are_text(self) -> None:
        call = {"id": "a", "type": "custom", "custom": {"name": "sql", "input": "SELECT 1"}}
        found = conversation(user("x"), {"role": "assistant", "tool_calls": [call]}, result("a"))
        assert found.messages[1] == {
            "role": "assistant",
            "content": '<custom_tool_call name="sql">\nSELECT 1\n</custom_tool_call>',
        }


def test_a_schema_is_told_to_the_model() -> None:
    form = {
        "type": "json_schema",
        "json_schema": {"name": "city", "description": "A city", "schema": {"type": "object"}},
    }
    found = conversation(user("x"), response_format=form)
    assert contents(found) == [
        ("system", 'Answer with JSON and nothing else: city (A city), by this JSON schema:\n{"type":"object"}'),
        ("user", "x"),
    ]


def test_each_family_is_told_its_own_form() -> None:
    plain = {"model": "m", "messages": [user("x")], "tools": [WEATHER]}
    request = msgspec.json.decode(msgspec.json.encode(plain), type=ChatRequest)
    told = {
        form.name: converse(request, offer_of(request), form, Abilities(), None).messages[0]["content"]
        for form in reversed(FORMATS)
    }
    assert '[TOOL_CALLS][{"name": "NAME", "arguments": {"ARGUMENT": VALUE}}]' in told["mistral"]
    assert '{"name": "NAME", "parameters": {"ARGUMENT": VALUE}}' in told["llama3"]
