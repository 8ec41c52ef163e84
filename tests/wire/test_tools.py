"""What a request offers the model."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from chatport.wire.chat import ChatRequest
from chatport.wire.tools import Offer, offer_of, tool_name

TOOLS: list[dict[str, Any]] = [
    {"type": "function", "function": {"name": "one"}},
    {"type": "custom", "custom": {"name": "two"}},
    {"type": "function", "function": {"name": "three"}},
]
FUNCTIONS: list[dict[str, Any]] = [{"name": "one"}, {"name": "two"}]


def request(**fields: Any) -> ChatRequest:
    plain = {"model": "m", "messages": [{"role": "user", "content": "x"}], **fields}
    return msgspec.convert(plain, ChatRequest)


def offered(**fields: Any) -> tuple[list[str], Offer]:
    offer = offer_of(request(**fields))
    return [tool_name(tool) for tool in offer.tools], offer


def function(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def custom(name: str) -> dict[str, Any]:
    return {"type": "custom", "custom": {"name": name}}


def allowed(mode: str, *tools: dict[str, Any]) -> dict[str, Any]:
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": list(tools)}}


@pytest.mark.parametrize(
    ("fields", "names", "must_call", "named", "several"),
    [
        ({}, [], False, False, True),
        ({"tools": TOOLS}, ["one", "two", "three"], False, False, True),
        ({"tools": TOOLS, "tool_choice": "auto"}, ["one", "two", "three"], False, False, True),
        ({"tools": TOOLS, "tool_choice": "none"}, [], False, False, True),
        ({"tools": TOOLS, "tool_choice": "required"}, ["one", "two", "three"], True, False, True),
        ({"tools": TOOLS, "parallel_tool_calls": False}, ["one", "two", "three"], False, False, False),
        ({"tools": TOOLS, "tool_choice": function("three")}, ["three"], True, True, False),
        ({"tools": TOOLS, "tool_choice": custom("two")}, ["two"], True, True, False),
        (
            {"tools": TOOLS, "tool_choice": allowed("auto", function("three"), custom("two"))},
            ["two", "three"],
            False,
            False,
            True,
        ),
        ({"tools": TOOLS, "tool_choice": allowed("required", function("one"))}, ["one"], True, False, True),
    ],
)
def test_tools(fields: dict[str, Any], names: list[str], must_call: bool, named: bool, several: bool) -> None:
    found, offer = offered(**fields)
    assert found == names
    assert (offer.must_call, offer.named, offer.several, offer.legacy) == (must_call, named, several, False)


@pytest.mark.parametrize(
    ("call", "names", "must_call"),
    [(None, ["one", "two"], False), ("auto", ["one", "two"], False), ({"name": "two"}, ["two"], True)],
)
def test_functions(call: Any, names: list[str], must_call: bool) -> None:
    found, offer = offered(functions=FUNCTIONS, function_call=call)
    assert found == names
    assert (offer.must_call, offer.several, offer.legacy) == (must_call, False, True)


def test_functions_that_must_not_be_called() -> None:
    assert offered(functions=FUNCTIONS, function_call="none")[1] == Offer()


def test_where_a_tool_stands() -> None:
    given = request(tools=TOOLS, tool_choice=allowed("auto", function("three"), custom("two")))
    offer = offer_of(given)
    assert [offer.path(tool, given) for tool in offer.tools] == ["tools[1].custom", "tools[2].function"]
    legacy = request(functions=FUNCTIONS, function_call={"name": "two"})
    assert offer_of(legacy).path(offer_of(legacy).tools[0], legacy) == "functions[1]"
