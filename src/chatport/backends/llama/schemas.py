"""A caller's JSON schema, as the grammar's compiler takes it.

What a model of a few hundred million parameters needs most is not to be led astray: so there is one way to lay JSON
out, without white space to get lost in; whole numbers without bounds get those up to which JSON is exact; and objects
that name their properties get no others unless the schema says so.

Strict schemas must compile. Of others, what the compiler does not know is left out; where it can't take one
at all (a pattern with look-around), patterns are left out too, and in the end everything but that it is JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Set
from functools import lru_cache, partial
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

HOLDING: Final = ("items", "additionalProperties", "anyOf", "oneOf", "prefixItems")
NAMED: Final = ("properties", "$defs", "definitions")
"""Keywords that hold a schema or a list of them, and those with a mapping to them. Such as narrow are not entered."""
IN_PLACE: Final = frozenset({"allOf", "anyOf", "oneOf", "$ref", "if", "then", "else", "not", "dependentSchemas"})
"""Keywords whose schemas speak of the same value as the schema that they stand in."""
ALWAYS_NARROWING: Final = frozenset({"allOf", "if", "not", "dependentSchemas", "unevaluatedProperties"})
OF_PROPERTIES: Final = frozenset({"properties", "$ref"})
"""With one of these, a schema may speak of properties that another one does not name."""
UNCERTAIN: Final = frozenset({"pattern", "format", "patternProperties", "propertyNames", "multipleOf"})
"""Keywords that the compiler can take or not, depending on what they say."""

LONGEST_CACHED: Final = 1 << 16
"""Bytes of a schema that is kept with what became of it."""

OBJECT: Final = b'{"type": "object"}'
NOTHING: Final = b'{"type": "object", "properties": {}, "additionalProperties": false}'
"""What a function without parameters takes."""


def guided(raw: bytes, *, strict: bool, is_object: bool = False) -> str:
    """The schema with all that the compiler is told beside it. is_object: it is one of an object, said or not.

    Raises Uncompilable where it is strict and can't be held.
    """
    make = _known if len(raw) <= LONGEST_CACHED else _guided
    return make(raw, strict=strict, is_object=is_object)


@lru_cache(maxsize=256)
def _known(raw: bytes, *, strict: bool, is_object: bool) -> str:
    return _guided(raw, strict=strict, is_object=is_object)


def _guided(raw: bytes, *, strict: bool, is_object: bool) -> str:
    given = msgspec.json.decode(raw)
    if strict:
        return _checked(_tidied(given), strict=True)
    for schema in _weaker_and_weaker(given, is_object=is_object):
        try:
            return _checked(schema, strict=False)
        except Uncompilable:
            continue
    raise Uncompilable("not even an object without a schema compiles")


def _checked(schema: Schema, *, strict: bool) -> str:
    if _wants_multiples_below_zero(schema):
        raise Uncompilable("'multipleOf' can't be held where only numbers below 0 are allowed")
    if isinstance(schema, dict):
        schema = {**schema, "x-guidance": {**LAYOUT, "lenient": not strict}}
    text = json.dumps(schema, ensure_ascii=False)
    compiled(f"start: %json {text}\n")
    return text


def _wants_multiples_below_zero(value: Any) -> bool:
    """The compiler takes such a schema, and knows no multiple below 0: the model would find nothing it may say."""
    match value:
        case {"multipleOf": int() | float(), "maximum": int() | float() as most} if most < 0:
            return True
        case {"multipleOf": int() | float(), "exclusiveMaximum": int() | float() as below} if below <= 0:
            return True
        case dict():
            return any(map(_wants_multiples_below_zero, value.values()))
        case list():
            return any(map(_wants_multiples_below_zero, value))
    return False


def _weaker_and_weaker(given: Schema, *, is_object: bool) -> Iterator[Schema]:
    typed = {"type": "object", **given} if is_object and isinstance(given, dict) else given
    yield _tidied({"additionalProperties": False, **typed} if is_object and _is_empty(typed) else typed)
    yield typed
    yield _without_uncertain(typed)
    yield {"type": "object"}


def _is_empty(schema: Schema) -> bool:
    """`properties: {}` is how clients write a function without parameters; elsewhere it may mean any object."""
    if not isinstance(schema, dict) or _is_narrowed(schema):
        return False
    return schema.get("properties") == {} and "patternProperties" not in schema


# --- Tidying ---------------------------------------------------------------------------------------------------------


def _tidied(schema: Schema) -> Schema:
    """Closed where it is open by omission, and with bounds on whole numbers."""
    return _tidy(schema, closing=not _builds_on_another(schema))


def _tidy(schema: Schema, *, closing: bool) -> Schema:
    if not isinstance(schema, dict):
        return schema
    inner = partial(_tidy, closing=closing and not _is_shared(schema))
    tidy = {key: _inner(key, value, inner) for key, value in schema.items()}
    if closing and _is_open_by_omission(schema):
        tidy.setdefault("additionalProperties", False)
    if _is_whole(schema.get("type")) and not BOUNDS & schema.keys():
        tidy |= {"minimum": -EXACT, "maximum": EXACT}
    return tidy


def _is_open_by_omission(schema: dict[str, Any]) -> bool:
    named = isinstance(schema.get("properties"), dict) and schema["properties"]
    return bool(named) and "patternProperties" not in schema and not _is_narrowed(schema)


def _is_narrowed(schema: dict[str, Any]) -> bool:
    """Whether several schemas speak of the value: closed, one could leave no value that fits another."""
    voices = ("properties" in schema or "required" in schema, *(key in schema for key in ("anyOf", "oneOf", "$ref")))
    return sum(voices) > 1 or bool(ALWAYS_NARROWING & schema.keys())


def _is_shared(schema: dict[str, Any]) -> bool:
    """Whether these several name properties, so that none of them knows all, however deep."""
    beside = {key: schema[key] for key in IN_PLACE & schema.keys()}
    return _is_narrowed(schema) and _mentions(beside, OF_PROPERTIES)


def _builds_on_another(value: Any) -> bool:
    """Whether an object is shared with one that stands elsewhere and is named by a reference: it could be any."""
    match value:
        case dict():
            if _is_shared(value) and _mentions(value, {"$ref"}):
                return True
            return any(map(_builds_on_another, value.values()))
        case list():
            return any(map(_builds_on_another, value))
    return False


def _mentions(value: Any, words: Set[str]) -> bool:
    match value:
        case dict():
            return not words.isdisjoint(value) or any(_mentions(inner, words) for inner in value.values())
        case list():
            return any(_mentions(inner, words) for inner in value)
    return False


def _is_whole(kind: Any) -> bool:
    """Whether all numbers of this type are whole ones."""
    kinds = kind if isinstance(kind, list) else [kind]
    return "integer" in kinds and "number" not in kinds


# --- Walking ---------------------------------------------------------------------------------------------------------


def _inner(key: str, value: Any, change: Callable[[Schema], Schema]) -> Any:
    """A keyword's value with the schemas in it changed. What is no keyword's place holds no schema."""
    if key in HOLDING:
        return [change(item) for item in value] if isinstance(value, list) else change(value)
    if key in NAMED and isinstance(value, dict):
        return {name: change(item) for name, item in value.items()}
    return value


def _without_uncertain(schema: Schema) -> Schema:
    """The schema without keywords that may not compile; properties that are called like them stay."""
    if not isinstance(schema, dict):
        return schema
    kept = {key: value for key, value in schema.items() if key not in UNCERTAIN}
    if isinstance(branches := kept.get("allOf"), list):
        kept["allOf"] = [_without_uncertain(branch) for branch in branches]
    return {key: _inner(key, value, _without_uncertain) for key, value in kept.items()}
