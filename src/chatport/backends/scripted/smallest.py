"""The smallest JSON value that a schema allows: what the scripted model writes where a schema asks for JSON.

Covers the strict subset of contract.md §7, patterns as far as `matching.py` does; what else a schema may say is
ignored. A schema may come from any client, so the work is bounded: `MAX_VALUES` in all, `MAX_DEPTH` levels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from msgspec import Struct

from chatport.backends.scripted.matching import TooMuch, Unmet, text_matching

MAX_VALUES = 20_000
"""Values made or tried, and characters of padding. The strict subset allows 5,000 properties."""

MAX_EXACT = 2**53
"""Up to here a double holds every whole number."""

BOUNDS = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")

MAX_DEPTH = 24
"""Levels of nesting; the strict subset allows 10, references may repeat them."""

FORMATS = {
    "date-time": "1970-01-01T00:00:00Z",
    "time": "00:00:00Z",
    "date": "1970-01-01",
    "duration": "PT0S",
    "email": "a@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uuid": "00000000-0000-4000-8000-000000000000",
}

Schema = Any


def smallest(schema: Schema) -> Any:
    """The value, as plain objects with keys in the schema's order. Raises Unmet."""
    return _Search(root=schema).value(schema, 0)


class _Search(Struct):
    root: Schema
    spent: int = 0

    def value(self, schema: Schema, depth: int) -> Any:
        self._spend(1)
        if depth > MAX_DEPTH or schema is False:
            raise Unmet
        if not isinstance(schema, dict):
            return None
        if "$ref" in schema:
            return self.value(self._resolve(schema["$ref"]), depth + 1)
        if "const" in schema:
            return schema["const"]
        if isinstance(schema.get("enum"), list) and schema["enum"]:
            return schema["enum"][0]
        alternatives = schema.get("anyOf") or schema.get("oneOf")
        if isinstance(alternatives, list):
            return self._first(alternatives, depth)
        return self._typed(_type(schema), schema, depth)

    def _typed(self, kind: str, schema: dict[str, Any], depth: int) -> Any:
        match kind:
            case "null":
                return None
            case "boolean":
                return False
            case "integer" | "number":
                return _number(schema, whole=kind == "integer")
            case "string":
                self._spend(_size(schema, "minLength"))
                return _string(schema)
            case "array":
                count = _size(schema, "minItems")
                self._spend(count)
                return [self.value(schema.get("items"), depth + 1) for _ in range(count)]
            case "object":
                return {name: self.value(inner, depth + 1) for name, inner in _required(schema)}
        raise Unmet(kind)

    def _first(self, alternatives: list[Schema], depth: int) -> Any:
        for alternative in sorted(alternatives, key=_weight):
            try:
                return self.value(alternative, depth + 1)
            except TooMuch:
                raise
            except Unmet:
                continue
        raise Unmet

    def _resolve(self, ref: object) -> Schema:
        if not isinstance(ref, str) or not (ref == "#" or ref.startswith("#/")):
            raise Unmet(ref)
        schema = self.root
        for step in ref[1:].split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            if not isinstance(schema, dict) or name not in schema:
                raise Unmet(ref)
            schema = schema[name]
        return schema

    def _spend(self, values: int) -> None:
        self.spent += values
        if self.spent > MAX_VALUES:
            raise TooMuch


def _type(schema: dict[str, Any]) -> str:
    kind = schema.get("type")
    if isinstance(kind, list) and kind:
        return str("null" if "null" in kind else kind[0])
    if isinstance(kind, str):
        return kind
    return "object" if "properties" in schema or "required" in schema else "null"


def _weight(schema: Schema) -> int:
    """References last: they may lead round in a circle."""
    if not isinstance(schema, dict) or "$ref" in schema:
        return 2
    return 1 if _type(schema) in ("object", "array") else 0


def _required(schema: dict[str, Any]) -> Iterator[tuple[str, Schema]]:
    properties = schema.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    required = schema.get("required")
    required = [name for name in required if isinstance(name, str)] if isinstance(required, list) else []
    wanted = dict.fromkeys(required)
    yield from ((name, inner) for name, inner in properties.items() if name in wanted)
    yield from ((name, schema.get("additionalProperties")) for name in wanted if name not in properties)


def _size(schema: dict[str, Any], key: str) -> int:
    size = schema.get(key, 0)
    return size if isinstance(size, int) and size > 0 else 0


def _string(schema: dict[str, Any]) -> str:
    low = _size(schema, "minLength")
    high = schema.get("maxLength")
    high = high if isinstance(high, int | float) else math.inf
    pattern = schema.get("pattern")
    if isinstance(pattern, str):
        if "format" in schema:
            raise Unmet(pattern)
        return text_matching(pattern, low, high)
    text = FORMATS.get(str(schema.get("format")), "a" * low)
    if not low <= len(text) <= high:
        raise Unmet
    return text


def _number(schema: dict[str, Any], *, whole: bool) -> int | float:
    """The first of 0, what lies next to a bound, and the middle of the bounds, that keeps all the rules."""
    bounds = [schema[key] for key in BOUNDS if _real(schema, key)]
    step = schema["multipleOf"] if _real(schema, "multipleOf") and schema["multipleOf"] > 0 else 1
    near = [n * step for bound in bounds for n in _neighbours(bound / step)]
    for number in [0, *near, *bounds, *([sum(bounds) / len(bounds)] if bounds else [])]:
        exact = int(number) if float(number).is_integer() else number
        if _allowed(exact, schema) and (isinstance(exact, int) or not whole):
            return exact
    raise Unmet


def _neighbours(number: float) -> list[int]:
    """The whole numbers around."""
    return [math.floor(number) + distance for distance in (-1, 0, 1, 2)] if abs(number) <= MAX_EXACT else []


def _real(schema: dict[str, Any], key: str) -> bool:
    """Whether this rule is given; one beyond what a double holds exactly is beyond this file."""
    value = schema.get(key)
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    if abs(value) > MAX_EXACT:
        raise Unmet(value)
    return True


def _allowed(number: float, schema: dict[str, Any]) -> bool:
    def rule(key: str, keeps: Callable[[float], bool]) -> bool:
        return not _real(schema, key) or keeps(schema[key])

    return (
        rule("minimum", lambda low: number >= low)
        and rule("maximum", lambda high: number <= high)
        and rule("exclusiveMinimum", lambda low: number > low)
        and rule("exclusiveMaximum", lambda high: number < high)
        and rule("multipleOf", lambda step: step > 0 and (number / step).is_integer())
    )
