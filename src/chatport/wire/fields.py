"""The cold path of decoding: which field of a request is wrong, and how.

The typed decoder refuses fast but explains little. This walks the plain JSON value beside msgspec's own description of
the same struct (`msgspec.inspect`), so that no field, range or enum is written down twice and the two can't drift; a
property test holds them together. Faults are found in document order, missing fields last; within an object told apart
by a tag (`role`, `type`) the tag comes first, since it says what the rest means.

Codes and params: contract.md §12.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from typing import Any

from msgspec import inspect

from chatport.wire.chat import ChatRequest
from chatport.wire.errors import QUOTE_LIMIT, BadJSON, InvalidRequest, quote

JSONObject = dict[str, object]

KINDS: Mapping[type[inspect.Type], tuple[type, ...]] = {
    inspect.NoneType: (type(None),),
    inspect.BoolType: (bool,),
    inspect.IntType: (int,),
    inspect.FloatType: (float, int),
    inspect.StrType: (str,),
    inspect.LiteralType: (str,),
    inspect.ListType: (list,),
    inspect.DictType: (dict,),
    inspect.StructType: (dict,),
    inspect.RawType: (type(None), bool, int, float, str, list, dict),
}
"""The JSON values each described type takes, compared by exact class: `true` is not an integer."""

EXPECTED: Mapping[type[inspect.Type], str] = {
    inspect.BoolType: "a boolean",
    inspect.IntType: "an integer",
    inspect.FloatType: "a number",
    inspect.StrType: "a string",
    inspect.LiteralType: "a string",
    inspect.ListType: "an array",
    inspect.DictType: "an object",
    inspect.StructType: "an object",
}

GIVEN: Mapping[type, str] = {
    type(None): "null",
    bool: "a boolean",
    int: "an integer",
    float: "a decimal",
    str: "a string",
    list: "an array",
    dict: "an object",
}


def validate(expected: type, value: object) -> None:
    """Returns when `value`, plain decoded JSON, fits the struct `expected`; raises InvalidRequest for a fault."""
    _check(_description(expected), value, "")


@cache
def _description(expected: type) -> inspect.Type:
    return inspect.type_info(expected)


# --- How a fault is told ---------------------------------------------------------------------------------------------


def given(value: object) -> str:
    """What stands there, quoted where it is short by nature: `a string ("0.7")`, `an array`, `null`."""
    kind = GIVEN[type(value)]
    return kind if isinstance(value, list | dict | None) else f"{kind} ({quote(value)})"


def wrong_type(path: str, expected: str, value: object) -> InvalidRequest:
    text = f"Invalid type for '{path}': expected {expected}, but got {given(value)} instead."
    return InvalidRequest(text, param=path, code="invalid_type")


def no_object(kind: str) -> BadJSON:
    return BadJSON(f"The request body must be a JSON object, but got {kind} instead.")


def missing(path: str) -> InvalidRequest:
    return InvalidRequest(f"Missing required parameter: '{path}'.", param=path, code="missing_required_parameter")


def wrong_value(path: str, value: str, allowed: Sequence[object]) -> InvalidRequest:
    supported = ", ".join(f"'{each}'" for each in allowed)
    text = f"Invalid value for '{path}': {quote(value)}. Supported values are: {supported}."
    return InvalidRequest(text, param=path, code="invalid_value")


def too_many_items(path: str, allowed: int, length: int) -> InvalidRequest:
    return InvalidRequest(
        f"Invalid '{path}': array too long. "
        f"Expected an array with maximum length {allowed}, but got an array with length {length} instead.",
        param=path,
        code="array_above_max_length",
    )


def short(name: str) -> str:
    """A name the client chose, cut to what a message may repeat."""
    return name if len(name) <= QUOTE_LIMIT else name[: QUOTE_LIMIT - 1] + "…"


def unknown_parameter(name: str) -> InvalidRequest:
    """The refusal of a field at a request's top level."""
    return _unknown("", name, ChatRequest.__struct_fields__)


def _unknown(path: str, name: str, known: Sequence[str]) -> InvalidRequest:
    near = get_close_matches(short(name), known, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    full = _join(path, short(name))
    return InvalidRequest(f"Unknown parameter: '{full}'.{hint}", param=full, code="unknown_parameter")


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


# --- One check for each kind of type ---------------------------------------------------------------------------------


def _check(shape: inspect.Type, value: object, path: str) -> None:
    shapes = shape.types if isinstance(shape, inspect.UnionType) else (shape,)
    fitting = [each for each in shapes if type(value) in KINDS[type(each)]]
    if not fitting:
        raise wrong_type(path, _expectation(shapes), value)
    chosen = _by_tag(fitting, value, path) if isinstance(value, dict) else fitting[0]
    CHECKS[type(chosen)](chosen, value, path)


def _expectation(shapes: Sequence[inspect.Type]) -> str:
    """`a string or an array`; that null stands for "not given" goes without saying."""
    return " or ".join(dict.fromkeys(EXPECTED[type(each)] for each in shapes if type(each) in EXPECTED))


def _by_tag(shapes: list[inspect.Type], value: JSONObject, path: str) -> inspect.Type:
    """The struct that the object's tag names. Where there is but one, msgspec does not insist on the tag."""
    structs = [each for each in shapes if isinstance(each, inspect.StructType)]
    field = structs[0].tag_field if structs else None
    if field is None or (len(structs) == 1 and field not in value):
        return shapes[0]
    if field not in value:
        raise missing(_join(path, field))
    tag = value[field]
    if not isinstance(tag, str):
        raise wrong_type(_join(path, field), "a string", tag)
    for struct in structs:
        if struct.tag == tag:
            return struct
    raise wrong_value(_join(path, field), tag, [struct.tag for struct in structs])


def _struct(shape: inspect.StructType, value: JSONObject, path: str) -> None:
    fields = {field.encode_name: field for field in shape.fields}
    for name, item in value.items():
        if name in fields:
            _check(fields[name].type, item, _join(path, name))
        elif shape.forbid_unknown_fields:
            raise _unknown(path, name, list(fields))
    for name, field in fields.items():
        if field.required and name not in value:
            raise missing(_join(path, name))


def _literal(shape: inspect.LiteralType, value: str, path: str) -> None:
    if value not in shape.values:
        raise wrong_value(path, value, shape.values)


def _number(shape: inspect.IntType | inspect.FloatType, value: float, path: str) -> None:
    if shape.ge is not None and value < shape.ge:
        raise _out_of_range(shape, value, path, "below minimum", f">= {shape.ge}")
    if shape.le is not None and value > shape.le:
        raise _out_of_range(shape, value, path, "above maximum", f"<= {shape.le}")


def _out_of_range(
    shape: inspect.IntType | inspect.FloatType, value: float, path: str, side: str, bound: str
) -> InvalidRequest:
    kind = "integer" if isinstance(shape, inspect.IntType) else "decimal"
    return InvalidRequest(
        f"Invalid '{path}': {kind} {side} value. Expected a value {bound}, but got {quote(value)} instead.",
        param=path,
        code=f"{kind}_{'below_min' if side == 'below minimum' else 'above_max'}_value",
    )


def _string(shape: inspect.StrType, value: str, path: str, noun: str = "string") -> None:
    """`noun`: a key of an object is checked like a string, and told as what it is."""
    if shape.min_length is not None and len(value) < shape.min_length:
        raise InvalidRequest(
            f"Invalid '{path}': {noun} too short. "
            f"Expected a {noun} with minimum length {shape.min_length}, but got an empty {noun} instead.",
            param=path,
            code="invalid_value",
        )
    if shape.max_length is not None and len(value) > shape.max_length:
        raise InvalidRequest(
            f"Invalid '{path}': {noun} too long. Expected a {noun} with maximum length {shape.max_length}, "
            f"but got a {noun} with length {len(value)} instead ({quote(value)}).",
            param=path,
            code="string_above_max_length",
        )
    if shape.pattern is not None and not re.search(shape.pattern, value):
        raise InvalidRequest(
            f"Invalid '{path}': {noun} does not match the pattern. Expected a {noun} that matches "
            f"'{shape.pattern.replace(chr(92) + 'Z', '$')}', but got {quote(value)} instead.",
            param=path,
            code="invalid_value",
        )


def _list(shape: inspect.ListType, value: list[object], path: str) -> None:
    if shape.min_length is not None and len(value) < shape.min_length:
        raise InvalidRequest(
            f"Invalid '{path}': empty array. "
            f"Expected an array with minimum length {shape.min_length}, but got an empty array instead.",
            param=path,
            code="empty_array",
        )
    if shape.max_length is not None and len(value) > shape.max_length:
        raise too_many_items(path, shape.max_length, len(value))
    for index, item in enumerate(value):
        _check(shape.item_type, item, f"{path}[{index}]")


def _dict(shape: inspect.DictType, value: JSONObject, path: str) -> None:
    if shape.max_length is not None and len(value) > shape.max_length:
        raise InvalidRequest(
            f"Invalid '{path}': too many properties. Expected an object with at most {shape.max_length} properties, "
            f"but got an object with {len(value)} properties instead.",
            param=path,
            code="object_above_max_properties",
        )
    for key, item in value.items():
        if isinstance(shape.key_type, inspect.StrType):
            _string(shape.key_type, key, path, "property name")
        _check(shape.value_type, item, _join(path, key))


def _anything(_shape: inspect.Type, _value: object, _path: str) -> None:
    """Nothing to find here: the kind of JSON value was all there is to say."""


CHECKS: Mapping[type[inspect.Type], Callable[[Any, Any, str], None]] = {
    inspect.NoneType: _anything,
    inspect.BoolType: _anything,
    inspect.RawType: _anything,
    inspect.IntType: _number,
    inspect.FloatType: _number,
    inspect.StrType: _string,
    inspect.LiteralType: _literal,
    inspect.ListType: _list,
    inspect.DictType: _dict,
    inspect.StructType: _struct,
}


# --- Without the value: msgspec's refusal in our words ---------------------------------------------------------------

UNKNOWN = "Object contains unknown field `"
MISSING = "Object missing required field `"
PLACED = re.compile(r"(?P<text>.*) - at `(?:key` in `)?\$\.?(?P<path>[^`]*?)(?:\[\.\.\.\])?`", re.DOTALL)
MISTYPED = re.compile(r"Expected `(?P<wanted>[^`]*)`(?:, got `(?P<got>\w+)`)?")
BEYOND = re.compile(r"Expected `(?P<kind>\w+)`(?P<of> of length)? (?P<bound>[<>]= .+)")
UNLIKE = re.compile(r"Expected `str` matching regex '(?P<pattern>.*)'")
REFUSED = re.compile(r"Invalid (?:enum )?value '(?P<value>.*)'", re.DOTALL)

WORDS: Mapping[str, str] = {
    "object": "an object",
    "array": "an array",
    "str": "a string",
    "int": "an integer",
    "float": "a number",
    "bool": "a boolean",
}
"""msgspec's names of what it expected; `null` goes without saying."""

BEYOND_CODES: Mapping[tuple[str, str], str] = {
    ("int", ">"): "integer_below_min_value",
    ("int", "<"): "integer_above_max_value",
    ("float", ">"): "decimal_below_min_value",
    ("float", "<"): "decimal_above_max_value",
    ("array", ">"): "empty_array",
    ("array", "<"): "array_above_max_length",
    ("str", "<"): "string_above_max_length",
    ("object", "<"): "object_above_max_properties",
}


def retell(expected: type, refusal: str) -> InvalidRequest:
    """What msgspec says when it refuses a body as `expected`, as our error: code and param as `validate` gives them.

    It knows less: of an object's free keys (`metadata`) no name, of a value often no more than its type.
    """
    if refusal.startswith(UNKNOWN):
        return _unknown("", refusal[len(UNKNOWN) : -1], list(expected.__struct_encode_fields__))  # type: ignore[attr-defined]
    placed = PLACED.fullmatch(refusal)
    text, path = (placed["text"], placed["path"]) if placed else (refusal, "")
    if text.startswith(MISSING):
        return missing(_join(path, text[len(MISSING) : -1]))
    if found := MISTYPED.fullmatch(text):
        return _mistyped(path, found["wanted"], found["got"])
    if found := BEYOND.fullmatch(text):
        limit = f"Expected {WORDS[found['kind']]}{found['of'] or ''} {found['bound']}."
        code = BEYOND_CODES.get((found["kind"], found["bound"][0]), "invalid_value")
        return InvalidRequest(f"Invalid '{path}': {limit}", param=path, code=code)
    return InvalidRequest(f"Invalid value for '{path}': {_reason(text)}.", param=path or None, code="invalid_value")


def _mistyped(path: str, wanted: str, got: str | None) -> InvalidRequest:
    kind = {"float": "a decimal", "null": "null", None: "something else"}.get(got) or WORDS.get(got or "", "another")
    if not path:
        return no_object(kind)
    kinds = " or ".join(WORDS[each] for each in wanted.split(" | ") if each in WORDS)
    text = f"Invalid type for '{path}': expected {kinds}, but got {kind} instead."
    return InvalidRequest(text, param=path, code="invalid_type")


def _reason(text: str) -> str:
    if found := REFUSED.fullmatch(text):
        return f"{quote(found['value'])} is not one of the supported values"
    if found := UNLIKE.fullmatch(text):
        pattern = found["pattern"].replace(r"\\Z", "$")
        return f"expected a string that matches '{pattern}'"
    return short(text[:1].lower() + text[1:])
