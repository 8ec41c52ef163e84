"""The strict subset of JSON schema, a row of contract.md §7 each, at its limits and one beyond them."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw
from msgspec.json import encode

from chatport.wire import strict
from chatport.wire.errors import InvalidRequest
from chatport.wire.strict import KEYWORDS, Patterns, SchemaSite, check_parameters, load_schema, pattern_fault
from chatport.wire.strict import check_strict as check_strict_with

SITE = SchemaSite("function 'f'", "tools[0].function.parameters", "tools[0].function.parameters", "the_code")
STRING: dict[str, Any] = {"type": "string"}


def check_strict(schema: dict[str, Any], site: SchemaSite) -> None:
    check_strict_with(schema, site, Patterns())


def closed(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def fault(schema: dict[str, Any]) -> str:
    with pytest.raises(InvalidRequest) as caught:
        check_strict(schema, SITE)
    assert (caught.value.param, caught.value.code) == (SITE.param, SITE.code)
    return caught.value.message.removeprefix("Invalid schema for function 'f': ")


def within(schema: object) -> str:
    """The fault of a property's schema, which must be told at its place."""
    message = fault(closed(a=schema))
    assert message.startswith("In context=('properties', 'a'")
    return message


# --- What is in the subset -------------------------------------------------------------------------------------------

FORMATS = ["date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"]

GOOD: list[dict[str, Any]] = [
    *({"type": kind} for kind in ("string", "number", "integer", "boolean", "null")),
    *({"type": "string", "format": each} for each in FORMATS),
    {"type": ["string", "null"], "description": "d", "title": "t"},
    {"type": "string", "enum": ["a", "b"]},
    {"enum": ["a", 1, None]},
    {"const": 3},
    {"type": "string", "pattern": r"^@[a-z]+$"},
    {"type": "integer", "default": 1},
    {"type": ["string", "null"], "default": None},
    {"type": "number", "multipleOf": 0.5, "minimum": -1, "maximum": 1},
    {"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 9},
    {"type": "array", "items": STRING, "minItems": 0, "maxItems": 3},
    {"type": ["array", "null"], "items": {"type": "array", "items": STRING}},
    {"anyOf": [STRING, {"type": "null"}, closed(b=STRING)]},
    closed(),
    {"type": "object", "additionalProperties": False},
    {"$ref": "#"},
    {"$ref": "#/$defs/d"},
    {"$ref": "#/$defs/d", "description": "with words of its own"},
    {"$ref": "#/definitions/tree"},
    {"$ref": "#/%24defs/a~1b"},
    {"$ref": "#/properties/a/anyOf/0", "anyOf": [STRING]},
]


@pytest.mark.parametrize("schema", GOOD)
def test_in_the_subset(schema: dict[str, Any]) -> None:
    tree = closed(left={"anyOf": [{"$ref": "#/definitions/tree"}, {"type": "null"}]})
    definitions = {"$defs": {"d": STRING, "a/b": {"$ref": "#/$defs/d"}}, "definitions": {"tree": tree}}
    check_strict({"$schema": "https://json-schema.org/draft/2020-12/schema", **closed(a=schema), **definitions}, SITE)


# --- What is not -----------------------------------------------------------------------------------------------------

BAD_ROOTS: list[tuple[dict[str, Any], str]] = [
    ({}, "got 'type: null'"),
    ({"type": "array", "items": STRING}, "got 'type: \"array\"'"),
    ({"type": ["object"], "additionalProperties": False}, "must be a JSON Schema of 'type: \"object\"'"),
    ({"$ref": "#/$defs/a", "$defs": {"a": closed()}}, "got 'type: null'"),
    ({**closed(), "anyOf": [closed()]}, "In context=(), 'anyOf' is not permitted at the root."),
    ({"type": "object"}, "In context=(), 'additionalProperties' is required to be supplied and to be false."),
    ({**closed(), "additionalProperties": True}, "'additionalProperties' is required"),
    ({**closed(), "additionalProperties": 0}, "'additionalProperties' is required"),
    ({**closed(a=STRING), "required": []}, "every key in properties. Missing 'a'."),
    ({**closed(**{"": STRING}), "required": []}, "every key in properties. Missing ''."),
    ({**closed(), "required": ["a"]}, "extra required key 'a' supplied"),
    ({**closed(), "required": "a"}, "'required' must be an array of strings, but is a string"),
    ({**closed(), "properties": []}, "'properties' must be an object of schemas, but is an array"),
    ({**closed(), "$defs": {"a": {"not": STRING}}}, "In context=('$defs', 'a'), schema must have a 'type' key."),
    (
        {**closed(), "$defs": {"a": {"type": "string", "not": STRING}}},
        "In context=('$defs', 'a'), 'not' is not permitted.",
    ),
]


@pytest.mark.parametrize(("schema", "text"), BAD_ROOTS)
def test_bad_roots(schema: dict[str, Any], text: str) -> None:
    assert text in fault(schema)


REFUSED = (
    "allOf not if then else dependentRequired dependentSchemas patternProperties oneOf minLength contains uniqueItems"
)


@pytest.mark.parametrize("keyword", REFUSED.split())
def test_refused_keywords(keyword: str) -> None:
    assert within({**STRING, keyword: {}}).endswith(f"'{keyword}' is not permitted.")
    assert keyword not in KEYWORDS


BAD: list[tuple[object, str]] = [
    (True, "schema must be an object, but got a boolean (true) instead."),
    ({}, "schema must have a 'type' key."),
    ({"description": "x"}, "schema must have a 'type' key."),
    ({"type": "text"}, "'type' must be one or several of 'string', 'number'"),
    ({"type": []}, "'type' must be one or several of"),
    ({"type": [["string"]]}, "'type' must be one or several of"),
    ({"type": "object", "properties": {}}, "'additionalProperties' is required"),
    ({"type": ["object", "null"]}, "'additionalProperties' is required"),
    ({"type": "array"}, "array schema missing items."),
    ({"type": "array", "items": True}, "'items' must be a schema"),
    ({"type": "array", "items": {}}, "'items'), schema must have a 'type' key."),
    ({"type": "array", "items": STRING, "minItems": -1}, "'minItems' must be an integer >= 0"),
    ({"type": "array", "items": STRING, "maxItems": 1.5}, "'maxItems' must be an integer >= 0"),
    ({"type": "array", "items": STRING, "maxItems": True}, "'maxItems' must be an integer >= 0"),
    ({"type": "number", "minimum": "0"}, "'minimum' must be a number"),
    ({"type": "number", "multipleOf": 0}, "'multipleOf' must be a number > 0"),
    ({"type": "string", "format": "uri"}, "'format' must be one of 'date-time', 'time'"),
    ({"type": "string", "format": ["date"]}, "'format' must be one of"),
    ({"type": "string", "pattern": 1}, "'pattern' must be a regular expression"),
    ({"type": "string", "pattern": "(a"}, 'pattern "(a" is refused: it does not compile: missing )'),
    ({"type": "string", "minimum": 1}, "'minimum' is only permitted where 'type' is 'integer' or 'number'."),
    ({"type": "string", "properties": {}}, "'properties' is only permitted where 'type' is 'object'."),
    ({"type": "string", "items": STRING}, "'items' is only permitted where 'type' is 'array'."),
    ({"type": "string", "enum": []}, "'enum' must be an array of values, not empty"),
    ({"type": "string", "enum": ["a", 1]}, '1 is not of type "string".'),
    ({"type": "integer", "enum": [True]}, 'true is not of type "integer".'),
    ({"type": ["string", "null"], "const": 2}, '2 is not of type ["string","null"].'),
    ({"anyOf": []}, "'anyOf' must be an array of schemas, not empty"),
    ({"anyOf": [STRING, {}]}, "'anyOf', '1'), schema must have a 'type' key."),
    ({"$ref": 1}, "'$ref' must be a string"),
    ({"$ref": "https://example.com/schema"}, "is remote. Only '#…' is permitted."),
    ({"$ref": "other.json#/a"}, "is remote"),
    ({"$ref": "#/$defs/none"}, 'reference "#/$defs/none" can\'t be resolved'),
    ({"$ref": "#anchor"}, "can't be resolved"),
    ({"$ref": "#/properties"}, "can't be resolved to a schema"),
    ({"$ref": "#/required/0"}, "can't be resolved to a schema"),
    ({"$ref": "#/required/9"}, "can't be resolved to a schema"),
    ({"$ref": "#/properties/a"}, "leads back to itself"),
]


@pytest.mark.parametrize(("schema", "text"), BAD)
def test_outside_the_subset(schema: object, text: str) -> None:
    assert text in within(schema)


def test_references_in_a_circle_say_nothing() -> None:
    circle = {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/c"}, "c": {"$ref": "#/$defs/b"}}
    assert "leads back to itself" in fault({**closed(), "$defs": circle})


def test_names_are_cut_to_what_a_message_may_repeat() -> None:
    assert len(fault(closed(**{"x" * 1000: {"y" * 1000: 1, "type": "null"}}))) < 250


# --- Sizes -----------------------------------------------------------------------------------------------------------


def levels(count: int) -> dict[str, Any]:
    schema = closed(leaf=STRING)
    for _ in range(count - 1):
        schema = closed(a=schema)
    return schema


def enum_of(count: int, chars: int) -> dict[str, Any]:
    return closed(a={"type": "string", "enum": [str(index).rjust(chars, "x") for index in range(count)]})


def many(count: int) -> dict[str, Any]:
    return closed(**{str(index): STRING for index in range(count)})


def halves(size: int) -> dict[str, Any]:
    """Names of `size` characters: a definition, a constant, and the two properties themselves."""
    half = "x" * (size // 2)
    return {**closed(c={"const": half}), "$defs": {"x" * (size - len(half) - 1): STRING}}


def unlike(count: int) -> list[dict[str, Any]]:
    """Schemas that are objects of their own, as they are when decoded."""
    return [{"type": "string"} for _ in range(count)]


SIZES: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    (levels(10), levels(11), "nests deeper than 10 levels"),
    (many(5000), many(5001), "too many properties: 5001, allowed are 5000"),
    (enum_of(1000, 15), enum_of(1001, 14), "too many enum values: 1001"),
    (enum_of(251, 59), enum_of(251, 60), "characters in an enum of more than 250 values: 15060"),
    (halves(120_000), halves(120_001), "characters of names, enum and const values: 120001"),
    (
        closed(a={**STRING, "pattern": "x" * 20_000}),
        closed(a={**STRING, "pattern": "x" * 20_001}),
        "characters of patterns: 20001",
    ),
    # The root and the property are schemas too.
    (closed(a={"anyOf": unlike(19_998)}), closed(a={"anyOf": unlike(19_999)}), "more than the 20000 schemas allowed"),
]


@pytest.mark.parametrize(("fits", "does_not", "text"), SIZES, ids=[text for *_, text in SIZES])
def test_sizes(fits: dict[str, Any], does_not: dict[str, Any], text: str) -> None:
    check_strict(fits, SITE)
    assert text in fault(does_not)


def test_a_short_enum_may_hold_long_strings() -> None:
    check_strict(enum_of(250, 400), SITE)


def test_arrays_count_as_levels_and_unions_do_not() -> None:
    schema: dict[str, Any] = STRING
    for _ in range(9):
        schema = {"type": "array", "items": {"anyOf": [schema, {"type": "null"}]}}
    check_strict(closed(a=schema), SITE)
    assert "10 levels" in fault(closed(a={"type": "array", "items": schema}))


def test_a_schema_as_deep_as_the_configuration_allows() -> None:
    schema: dict[str, Any] = STRING
    for _ in range(250):
        schema = {"anyOf": [schema]}
    raw = Raw(encode(closed(a=schema)))
    check_strict(load_schema(raw, SITE, 512), SITE)


# --- Any schema ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schema", [{}, {"type": "object"}, {"properties": 1}])
def test_parameters_of_an_object(schema: dict[str, Any]) -> None:
    check_parameters(schema, SITE)


@pytest.mark.parametrize("kind", ["string", None, ["object", "null"], 1])
def test_parameters_of_something_else(kind: object) -> None:
    with pytest.raises(InvalidRequest, match="must be a JSON Schema of 'type: \"object\"'"):
        check_parameters({"type": kind}, SITE)


@pytest.mark.parametrize("raw", [b"1", b"[]", b'"{}"', b"true"])
def test_a_schema_is_an_object(raw: bytes) -> None:
    with pytest.raises(InvalidRequest) as caught:
        load_schema(Raw(raw), SITE, 64)
    assert (caught.value.code, caught.value.param) == ("invalid_type", SITE.path)


@pytest.mark.parametrize(("raw", "fits"), [(b'{"a":{"b":[]}}', True), (b'{"a":{"b":[{}]}}', False), (b"{}", True)])
def test_depth_counts_objects_and_arrays(raw: bytes, fits: bool) -> None:
    if fits:
        load_schema(Raw(raw), SITE, 3)
    else:
        with pytest.raises(InvalidRequest, match="3 levels"):
            load_schema(Raw(raw), SITE, 3)


def test_depth_beyond_the_stack() -> None:
    with pytest.raises(InvalidRequest, match="64 levels"):
        load_schema(Raw(b'{"a":' * 5000 + b"1" + b"}" * 5000), SITE, 64)


# --- Patterns --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        r"^\d{4}-\d{2}$",
        r"(?<year>\d+)-\k<year>",
        r"[\p{L}\P{Lu}]+\pL",
        r"[\u{1F600}-\u{1F64F}]",
        r"\x{41}\cA\z",
        r"\/\-\.",
        "[[a]",
        "[a||b]",
        r"(?<=a)b(?!c)",
    ],
)
def test_patterns_of_the_other_dialects_compile(pattern: str) -> None:
    assert pattern_fault(pattern) is None


@pytest.mark.parametrize("pattern", ["(", "[", "*", "a{2,1}", "(?P<n>a)(?P<n>b)", "\\", "(" * 5000, "a{99999999999}"])
def test_patterns_that_do_not_compile(pattern: str) -> None:
    assert pattern_fault(pattern)


# --- Whatever comes in -----------------------------------------------------------------------------------------------

STEADY = settings(deadline=None, derandomize=True)

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from(["string", "object", "array", "#", "#/$defs/a", "a"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*KEYWORDS, "a", "allOf"]), inner, max_size=4)
    ),
    max_leaves=20,
)


@STEADY
@given(st.dictionaries(st.sampled_from(list(KEYWORDS)), VALUES, max_size=4), VALUES)
def test_any_schema_is_in_the_subset_or_outside_it(schema: dict[str, Any], inner: object) -> None:
    for each in (schema, closed(a=inner), {**closed(a={"$ref": "#/$defs/a"}), "$defs": {"a": inner}}):
        try:
            check_strict(each, SITE)
        except InvalidRequest as error:
            assert error.message  # noqa: PT017


# --- Patterns are read, not compiled ---------------------------------------------------------------------------------


def test_patterns_are_never_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiler lays out sets: 6 s for 10 kB of them."""
    compiler = importlib.import_module("re._compiler")
    monkeypatch.setattr(compiler, "compile", lambda *_: pytest.fail("compiled"))
    assert pattern_fault("[\x01-\U0010ffff]" * 2000) is None
    assert pattern_fault("(" * 10_000 + ")" * 10_000) == "it repeats or nests too much"


def test_a_pattern_over_the_budget_is_not_even_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strict, "pattern_fault", lambda _: pytest.fail("parsed"))
    reason = Patterns().fault("a" * 1_000_000)
    assert reason == "with it the request has too many characters of patterns: 1000000, allowed are 20000"
