"""Schemas as the compiler takes them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from llguidance import LLMatcher, LLTokenizer

from chatport.backends.llama import schemas
from chatport.backends.llama.compiler import Uncompilable, compiled
from chatport.backends.llama.schemas import EXACT, LONGEST_CACHED, guided

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
        {"properties": {"a": {}}, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
        {"properties": {"a": {}}, "oneOf": [{"properties": {"b": {}}, "required": ["b"]}]},
        {"properties": {"a": {}}, "$ref": "#/$defs/d", "$defs": {"d": {"properties": {"b": {}}}}},
        {"properties": {"a": {}}, "if": {"required": ["a"]}, "then": {"required": ["b"]}},
        {"properties": {"a": {}}, "not": {"required": ["b"]}},
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


A, B = ({"properties": {name: {"type": "string"}}, "required": [name]} for name in "ab")
BOTH = '{"a": "x", "b": "y"}'


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({**A, "anyOf": [B]}, BOTH),
        ({**A, "oneOf": [B, {"properties": {"b": {"type": "null"}}, "required": ["b"]}]}, BOTH),
        ({"required": ["a"], "anyOf": [B]}, '{"b": "y", "a": 1}'),
        ({"anyOf": [A], "oneOf": [B]}, BOTH),
        ({"properties": {}, "anyOf": [A, B]}, BOTH),
        ({"allOf": [{"$ref": "#/$defs/base"}, B], "$defs": {"base": A}}, BOTH),
        ({**B, "$ref": "#/$defs/base", "$defs": {"base": A}}, '{"b": "y", "a": "x"}'),
        (
            {"properties": {"in": A}, "anyOf": [{"properties": {"in": B}, "required": ["in"]}]},
            f'{{"in": {BOTH}}}',
        ),
    ],
)
def test_no_value_is_lost_where_several_schemas_speak_of_it(schema: Any, value: str) -> None:
    raw = json.dumps({"type": "object", **schema}).encode()
    assert accepts(guided(raw, strict=False, is_object=True), value)


def test_it_is_decided_for_each_object() -> None:
    """Also where a text only looks like a keyword."""
    open_one = {**A, "anyOf": [{"required": ["b"]}]}
    plain = {**B, "description": "allOf", "enum": [{"not": 1}]}
    found = taken({"properties": {"open": open_one, "plain": plain, "if": {}}})
    assert found["additionalProperties"] is False
    assert found["properties"]["plain"]["additionalProperties"] is False
    assert "additionalProperties" not in found["properties"]["open"]


def test_objects_to_choose_from_are_closed() -> None:
    found = taken({"properties": {"x": {"type": "object", "anyOf": [A, B]}}})
    assert [one["additionalProperties"] for one in found["properties"]["x"]["anyOf"]] == [False, False]


@pytest.mark.parametrize(("kinds", "ends"), [(["integer", "null"], True), (["integer", "number"], False)])
def test_whole_numbers_among_other_types_end_too(kinds: list[str], ends: bool) -> None:
    found = taken({"properties": {"n": {"type": kinds}}})
    assert found["properties"]["n"] == {"type": kinds, **({"minimum": -EXACT, "maximum": EXACT} if ends else {})}


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
        {"type": "object", "properties": {"a": {"type": "integer", "multipleOf": 5, "maximum": -11}}},
        {"type": "object", "properties": {"a": {"type": "number", "multipleOf": 0.5, "exclusiveMaximum": 0}}},
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


def test_properties_that_are_called_like_keywords_survive_it_too() -> None:
    look_around = {"type": "string", "pattern": "(?=x)"}
    names = {"pattern": {"const": {"format": 1}}, "format": look_around, "propertyNames": {"type": "null"}}
    schema = {"type": "object", "properties": names, "required": [*names], "allOf": [{"items": [look_around]}]}
    text = guided(json.dumps(schema).encode(), strict=False)
    assert accepts(text, '{"pattern": {"format": 1}, "format": "anything", "propertyNames": null}')
    assert not accepts(text, '{"pattern": 1, "format": "anything", "propertyNames": null}')


def test_only_schemas_of_some_size_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def counted(schema: Any, *, strict: bool) -> str:
        made.append(strict)
        return json.dumps(schema)

    monkeypatch.setattr(schemas, "_checked", counted)
    for size, times in ((LONGEST_CACHED, 1), (LONGEST_CACHED + 1, 2)):
        raw = b'{"title": "only schemas of some size"}'.ljust(size)
        made.clear()
        assert guided(raw, strict=False) == guided(raw, strict=False)
        assert len(made) == times


def test_a_client_does_not_steer_the_compiler() -> None:
    found = taken({"type": "object", "x-guidance": {"whitespace_flexible": True}})
    assert found["x-guidance"]["whitespace_flexible"] is False


def test_a_fault_is_told_in_a_line_without_our_grammar() -> None:
    with pytest.raises(Uncompilable) as fault:
        compiled("start: foo\n")
    assert str(fault.value) == 'at 1(8): unknown name: "foo"'
