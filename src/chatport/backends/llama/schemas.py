"""A caller's JSON schema, as the grammar's compiler takes it.

What a model of a few hundred million parameters needs most is not to be led astray: so there is one way to lay JSON
out, without white space to get lost in; whole numbers without bounds get those up to which JSON is exact; and objects
that name their properties get no others unless the schema says so.

Strict schemas must compile. Of others, what the compiler does not know is left out; where it can't take one
at all (a pattern with look-around), patterns are left out too, and in the end everything but that it is JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final

import msgspec

from chatport.backends.llama.compiler import Uncompilable, compiled

Schema = Any
"""An object, as a rule; true and false are schemas too."""

EXACT: Final = 2**53
"""Up to here a double holds every whole number (RFC 8259, 6)."""
BOUNDS: Final = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "enum", "const"})
LAYOUT: Final = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": ", "coerce_one_of": True}
"""As Python writes JSON, and as the templates of most models show it."""

ONE: Final = ("items", "additionalProperties")
MANY: Final = ("anyOf", "oneOf", "prefixItems")
NAMED: Final = ("properties", "$defs", "definitions")
"""Keywords that hold a schema, a list of them, or a mapping to them; those that narrow one another are not entered."""
NARROWING: Final = (b'"allOf"', b'"if"', b'"not"', b'"unevaluatedProperties"', b'"dependentSchemas"')
"""With one of these, an object closed here could be one that no value fits."""

OBJECT: Final = b'{"type": "object"}'
NOTHING: Final = b'{"type": "object", "properties": {}, "additionalProperties": false}'
"""What a function without parameters takes."""


@lru_cache(maxsize=256)
def guided(raw: bytes, *, strict: bool, is_object: bool = False) -> str:
    """The schema with all that the compiler is told beside it. is_object: it is one of an object, said or not.

    Raises Uncompilable where it is strict and can't be held.
    """
    given = msgspec.json.decode(raw)
    if strict:
        return _checked(_tidied(given), strict=True)
    for schema in _weaker_and_weaker(given, raw, is_object=is_object):
        try:
            return _checked(schema, strict=False)
        except Uncompilable:
            continue
    raise Uncompilable("not even an object without a schema compiles")


def _checked(schema: Schema, *, strict: bool) -> str:
    if isinstance(schema, dict):
        schema = {**schema, "x-guidance": {**LAYOUT, "lenient": not strict}}
    text = json.dumps(schema, ensure_ascii=False)
    compiled(f"start: %json {text}\n")
    return text


def _weaker_and_weaker(given: Schema, raw: bytes, *, is_object: bool) -> Iterator[Schema]:
    typed = {"type": "object", **given} if is_object and isinstance(given, dict) else given
    if not any(word in raw for word in NARROWING):
        yield _tidied({"additionalProperties": False, **typed} if is_object and _is_empty(typed) else typed)
    yield typed
    yield _without(typed, {"pattern", "format", "patternProperties", "propertyNames"})
    yield {"type": "object"}


def _is_empty(schema: Schema) -> bool:
    """`properties: {}` is how clients write a function without parameters; elsewhere it may mean any object."""
    return isinstance(schema, dict) and schema.get("properties") == {} and "patternProperties" not in schema


def _tidied(schema: Schema) -> Schema:
    """Closed where it is open by omission, and with bounds on whole numbers."""
    if not isinstance(schema, dict):
        return schema
    tidy = {key: _inner(key, value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema["properties"] and "patternProperties" not in schema:
        tidy.setdefault("additionalProperties", False)
    if schema.get("type") == "integer" and not BOUNDS & schema.keys():
        tidy |= {"minimum": -EXACT, "maximum": EXACT}
    return tidy


def _inner(key: str, value: Any) -> Any:
    if key in ONE:
        return _tidied(value)
    if key in MANY and isinstance(value, list):
        return [_tidied(item) for item in value]
    if key in NAMED and isinstance(value, dict):
        return {name: _tidied(item) for name, item in value.items()}
    return value


def _without(value: Any, keywords: set[str]) -> Any:
    """The schema without these keywords, wherever they stand."""
    match value:
        case dict():
            return {key: _without(inner, keywords) for key, inner in value.items() if key not in keywords}
        case list():
            return [_without(inner, keywords) for inner in value]
    return value
