"""The smallest value that a schema allows, held to the schema by a validator of another house."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from chatport.backends.scripted.matching import TooMuch, Unmet
from chatport.backends.scripted.smallest import FORMATS, smallest


def strict(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def checked(schema: Any) -> Any:
    value = smallest(schema)
    Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(value)
    return value


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (strict(), {}),
        (strict(b={"type": "string"}, a={"type": "integer"}), {"b": "", "a": 0}),
        (strict(a={"type": ["string", "null"]}), {"a": None}),
        (strict(a={"enum": ["x", "y"]}), {"a": "x"}),
        (strict(a={"const": [1]}), {"a": [1]}),
        (strict(a={"type": "boolean"}), {"a": False}),
        (strict(a={"type": "string", "minLength": 3}), {"a": "aaa"}),
        (strict(a={"type": "string", "pattern": "^[a-z]+$"}), {"a": "a"}),
        (strict(a={"type": "number", "minimum": 0, "maximum": 9, "multipleOf": 0.5}), {"a": 0}),
        (strict(a={"type": "integer", "minimum": 3, "multipleOf": 5}), {"a": 5}),
        (strict(a={"type": "integer", "exclusiveMinimum": 3}), {"a": 4}),
        (strict(a={"type": "integer", "maximum": -3.5}), {"a": -5}),
        (strict(a={"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}), {"a": 0.5}),
        (strict(a={"type": "number", "minimum": 0.25, "maximum": 0.25}), {"a": 0.25}),
        (strict(a={"type": "array", "items": {"type": "integer"}, "minItems": 2}), {"a": [0, 0]}),
        (strict(a={"type": "array", "items": {"type": "integer"}}), {"a": []}),
        (strict(a={"anyOf": [strict(b={"type": "null"}), {"type": "string"}]}), {"a": ""}),
        (strict(a={"anyOf": [{"$ref": "#"}, {"type": "null"}]}), {"a": None}),
        (strict(a={"anyOf": [{"$ref": "#"}, strict()]}), {"a": {}}),
        (strict(a={"anyOf": [{"type": "string", "pattern": "(?=x)"}, {"type": "array"}]}), {"a": []}),
        ({**strict(a={"$ref": "#/$defs/b~1c"}), "$defs": {"b/c": {"type": "string"}}}, {"a": ""}),
        ({"properties": {"a": {}, "b": {}}, "required": ["b", "z"]}, {"b": None, "z": None}),
        ({"type": "object", "properties": {"a": {"type": "string"}}}, {}),
        ({"type": "object", "required": ["z"], "additionalProperties": {"type": "string"}}, {"z": ""}),
    ],
)
def test_the_value(schema: Any, value: Any) -> None:
    made = checked(schema)
    assert made == value
    assert list(made) == list(value), "keys in the schema's order"


@pytest.mark.parametrize("name", FORMATS)
def test_formats(name: str) -> None:
    checked(strict(a={"type": "string", "format": name}))


@pytest.mark.parametrize(
    "schema",
    [
        False,
        {"$ref": "https://a.example/s"},
        {"$ref": "#/$defs/nowhere"},
        {"$ref": "#anchor"},
        {"$ref": 5},
        {"$ref": "#"},
        {"type": "colour"},
        {"anyOf": [False, {"$ref": "#/nowhere"}]},
        {"type": "string", "minLength": 3, "maxLength": 2},
        {"type": "string", "pattern": "(?=x)"},
        {"type": "string", "pattern": "a", "format": "date"},
        {"type": "integer", "minimum": 1, "maximum": 0},
        {"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
        {"type": "number", "minimum": 1e300},
        {"type": "integer", "minimum": 10**400},
        strict(a={"$ref": "#"}),
        {"type": "object", "required": ["a"], "additionalProperties": False},
    ],
)
def test_what_no_value_was_found_for_is_unmet(schema: Any) -> None:
    with pytest.raises(Unmet):
        smallest(schema)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "minLength": 10**9},
        {"type": "array", "minItems": 10**9},
        {"type": "array", "minItems": 999, "items": {"type": "array", "minItems": 999}},
        strict(a={"$ref": "#"}, b={"$ref": "#"}) | {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]},
    ],
)
def test_work_is_bounded(schema: Any) -> None:
    with pytest.raises(TooMuch):
        smallest(schema)


SCALARS = st.sampled_from(
    [
        {"type": "string"},
        {"type": "string", "format": "uuid"},
        {"type": "integer", "minimum": 7},
        {"type": "number", "maximum": -0.5},
        {"type": "null"},
        {"type": ["boolean", "null"]},
        {"enum": [1, "a"]},
        {"$ref": "#/$defs/leaf"},
    ]
)
SCHEMAS = st.recursive(
    SCALARS,
    lambda inner: (
        st.dictionaries(st.text(max_size=3), inner, max_size=3).map(lambda properties: strict(**properties))
        | st.lists(inner, min_size=1, max_size=3).map(lambda alternatives: {"anyOf": alternatives})
        | st.tuples(inner, st.integers(0, 2)).map(lambda it: {"type": "array", "items": it[0], "minItems": it[1]})
    ),
    max_leaves=12,
)


@given(schema=SCHEMAS)
def test_any_strict_schema_is_met(schema: dict[str, Any]) -> None:
    checked({**strict(answer=schema), "$defs": {"leaf": strict(leaf={"type": "boolean"})}})
