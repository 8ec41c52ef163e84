"""Schemas as the compiler takes them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from llguidance import LLMatcher, LLTokenizer

from chatport.backends.llama.compiler import Uncompilable, compiled
from chatport.backends.llama.schemas import EXACT, guided

BYTES = LLTokenizer("byte")


def taken(schema: Any, *, strict: bool = False, is_object: bool = False) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(guided(json.dumps(schema).encode(), strict=strict, is_object=is_object))
    return found


def accepts(schema: str, value: str) -> bool:
    matcher = LLMatcher(BYTES, f"start: %json {schema}\n")
    tokens = BYTES.tokenize_str(value)
    return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()


def test_objects_that_name_their_properties_get_no_others() -> None:
    inner = {"type": "object", "properties": {"x": {"type": "string"}}}
    found = taken({"properties": {"a": inner, "properties": {"type": "boolean"}}, "$defs": {"d": inner}})
    assert found["additionalProperties"] is False
    assert found["properties"]["a"]["additionalProperties"] is False
    assert found["$defs"]["d"]["additionalProperties"] is False
    assert set(found["properties"]) == {"a", "properties"}, "a property may be called like a keyword"


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"a": {}}, "additionalProperties": True},
        {"type": "object"},
        {"properties": {"a": {}}, "allOf": [{"properties": {"b": {}}}]},
    ],
)
def test_objects_that_are_open_on_purpose_stay_so(schema: Any) -> None:
    assert taken(schema).get("additionalProperties") in (None, True)


def test_a_function_without_parameters_gets_none() -> None:
    """As LangChain and zod write one; a property that is such an object may hold anything."""
    empty = {"type": "object", "properties": {}}
    found = taken({**empty, "title": "no_args"}, is_object=True)
    assert accepts(json.dumps(found), "{}")
    assert not accepts(json.dumps(found), '{"a": 1}')
    assert "additionalProperties" not in taken(empty)
    assert "additionalProperties" not in taken({"properties": {"a": empty}}, is_object=True)["properties"]["a"]
    assert taken({**empty, "additionalProperties": True}, is_object=True)["additionalProperties"] is True


def test_whole_numbers_end_somewhere() -> None:
    found = taken({"properties": {"n": {"type": "integer"}, "m": {"type": "integer", "minimum": 3}}})
    assert found["properties"]["n"] == {"type": "integer", "minimum": -EXACT, "maximum": EXACT}
    assert found["properties"]["m"] == {"type": "integer", "minimum": 3}


def test_arguments_are_an_object_said_or_not() -> None:
    assert taken({"properties": {}}, is_object=True)["type"] == "object"
    assert "type" not in taken({"properties": {}})


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": {"type": "string", "pattern": "(?=x)y"}}},
        {"type": "object", "properties": {"a": {"$ref": "https://example.com/x"}}},
        {"type": "object", "properties": {"a": {"not": {"type": "string"}}}},
        {"type": "object", "properties": {"a": {"type": "no such type"}}},
        {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}},
    ],
)
def test_what_cannot_be_held_is_left_out_unless_it_is_promised(schema: Any) -> None:
    compiled(f"start: %json {guided(json.dumps(schema).encode(), strict=False)}\n")
    with pytest.raises(Uncompilable):
        guided(json.dumps(schema).encode(), strict=True)


def test_what_else_a_schema_says_survives_a_pattern_that_does_not() -> None:
    schema = {"type": "object", "properties": {"a": {"enum": ["x"]}, "b": {"type": "string", "pattern": "(?=x)"}}}
    text = guided(json.dumps({**schema, "required": ["a", "b"]}).encode(), strict=False)
    assert accepts(text, '{"a": "x", "b": "anything"}')
    assert not accepts(text, '{"a": "y", "b": "anything"}')


def test_a_client_does_not_steer_the_compiler() -> None:
    found = taken({"type": "object", "x-guidance": {"whitespace_flexible": True}})
    assert found["x-guidance"]["whitespace_flexible"] is False


def test_a_fault_is_told_in_a_line_without_our_grammar() -> None:
    with pytest.raises(Uncompilable) as fault:
        compiled("start: foo\n")
    assert str(fault.value) == 'at 1(8): unknown name: "foo"'
