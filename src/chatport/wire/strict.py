"""A caller's JSON schema: the root that every one must have, and the subset that `strict` promises to hold (§7).

Strict output is made under a grammar, so a strict schema may say only what a grammar can hold. The subset is one table,
`KEYWORDS`: what each keyword applies to and what its value must be; a keyword that is not in it is refused by name.
What needs more than one keyword (required against properties, references, sizes) stands in `_StrictSchema`.

Every fault names its place as OpenAI does: `In context=('properties', 'age'), 'allOf' is not permitted.`
"""

from __future__ import annotations

import importlib
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Any
from urllib.parse import unquote

import msgspec
from msgspec import Raw, Struct

from chatport.wire.errors import InvalidRequest, quote
from chatport.wire.fields import JSONObject, given, short, wrong_type

MAX_PROPERTIES = 5000
MAX_LEVELS = 10
"""Objects and arrays within each other; references are not followed."""
MAX_NAME_CHARS = 120_000
"""Characters of property and definition names, enum and const values together."""
MAX_ENUM_VALUES = 1000
LONG_ENUM = 250
MAX_LONG_ENUM_CHARS = 15_000
"""Characters of one enum of more than `LONG_ENUM` strings."""
MAX_SUBSCHEMAS = 20_000
"""Schemas within the schema. Ours: each takes 5 µs to check, on the loop that serves everybody."""
MAX_PATTERN_CHARS = 20_000
"""Characters of all patterns of a request, regex grammars too. Ours: a character takes up to 2 µs to parse."""

Context = tuple[str, ...]


class SchemaSite(Struct, frozen=True):
    """Where a schema stands in the request, and how a fault in it is told."""

    subject: str
    """`function 'get_weather'`, `response_format 'person'`."""
    path: str
    """Of the schema itself."""
    param: str
    """Of a fault within it, which for `response_format` is that field as a whole (contract.md §7)."""
    code: str

    def fault(self, text: str) -> InvalidRequest:
        return InvalidRequest(f"Invalid schema for {self.subject}: {text}", param=self.param, code=self.code)


def load_schema(raw: Raw, site: SchemaSite, max_depth: int) -> JSONObject:
    """The schema as plain values. Raises InvalidRequest when it is no object, or nests deeper than `max_depth`."""
    try:
        schema = msgspec.json.decode(raw)
    except msgspec.ValidationError:
        raise site.fault("it holds a number that is too large.") from None
    except RecursionError:
        raise _too_deep(site, max_depth) from None
    if not isinstance(schema, dict):
        raise wrong_type(site.path, "an object", schema)
    text = bytes(raw)
    if text.count(b"{") + text.count(b"[") > max_depth and _deeper_than(schema, max_depth):
        raise _too_deep(site, max_depth)
    return schema


def _too_deep(site: SchemaSite, max_depth: int) -> InvalidRequest:
    return site.fault(f"it nests deeper than the {max_depth} levels allowed.")


def _deeper_than(schema: JSONObject, levels: int) -> bool:
    """Level by level instead of recursively: however wide or deep it is, it costs one look at each value."""
    level: list[JSONObject | list[object]] = [schema]
    for _ in range(levels):
        values = chain.from_iterable(node.values() if isinstance(node, dict) else node for node in level)
        level = [value for value in values if isinstance(value, dict | list)]
    return bool(level)


def check_parameters(schema: JSONObject, site: SchemaSite) -> None:
    """What any tool's `parameters` must be: a schema of an object, where it says a type at all (§6)."""
    kind = schema.get("type", "object")
    if kind != "object":
        raise site.fault(f"schema must be a JSON Schema of 'type: \"object\"', got 'type: {quote(kind)}'.")


def check_strict(schema: JSONObject, site: SchemaSite, patterns: Patterns) -> None:
    """Raises InvalidRequest for the first thing in `schema` that lies outside the strict subset."""
    _StrictSchema(schema, site, patterns).check()


# --- Patterns --------------------------------------------------------------------------------------------------------

DIALECT = re.compile(
    r"\\(?:[pP](?:\{[^{}]*\}|[A-Z])|[ux]\{0*(?P<code>[0-9a-fA-F]{1,5}|10[0-9a-fA-F]{4})\}|c[A-Za-z]|z)"
)
"""Escapes of ECMAScript's and Rust's expressions that Python does not know; each stands for a class or a character."""

NAMED_GROUP = re.compile(r"\(\?<(?=[A-Za-z_])")
NAMED_REFERENCE = re.compile(r"\\k<(\w+)>")


def _in_python(escape: re.Match[str]) -> str:
    code = escape["code"]
    return re.escape(chr(int(code, 16))) if code else r"\w"


_parser: Any = importlib.import_module("re._parser")


class Patterns:
    """The regular expressions of one request: each is parsed, as long as they are not too many characters."""

    def __init__(self) -> None:
        self._chars = 0

    def fault(self, pattern: str) -> str | None:
        """Why this one can't be taken, None when it can; said of "it"."""
        self._chars += len(pattern)
        if self._chars > MAX_PATTERN_CHARS:
            return (
                f"with it the request has too many characters of patterns: {self._chars}, "
                f"allowed are {MAX_PATTERN_CHARS}"
            )
        reason = pattern_fault(pattern)
        return reason and f"it does not compile: {reason}"


def pattern_fault(pattern: str) -> str | None:
    """Why a regular expression does not parse, None when it does. Python's parser judges, dialects bridged.

    Its compiler is not asked: it lays out every set it meets, and takes seconds for what the parser reads in 10 ms.
    """
    bridged = NAMED_REFERENCE.sub(r"(?P=\1)", NAMED_GROUP.sub("(?P<", DIALECT.sub(_in_python, pattern)))
    try:
        with warnings.catch_warnings():  # a nested set is a warning to Python, and fine in ECMAScript
            warnings.simplefilter("ignore")
            _parser.parse(bridged)
    except re.error as exc:
        return exc.msg
    except (OverflowError, RecursionError):
        return "it repeats or nests too much"
    return None


# --- The strict subset -----------------------------------------------------------------------------------------------


class Keyword(Struct, frozen=True):
    """`types`: the schema must allow one of them, empty is any. `fits`: whether the value is one, `wanted` in words."""

    types: frozenset[str]
    fits: Callable[[object], bool]
    wanted: str


TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "null": (type(None),),
    "object": (dict,),
    "array": (list,),
}
"""A schema's types, and the exact classes of the values that are of them."""

FORMATS = ("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid")

ANY: frozenset[str] = frozenset()
OBJECT = frozenset({"object"})
ARRAY = frozenset({"array"})
STRING = frozenset({"string"})
NUMBER = frozenset({"number", "integer"})


def _is_type(value: object) -> bool:
    kinds = value if isinstance(value, list) else [value]
    return bool(kinds) and all(isinstance(kind, str) and kind in TYPES for kind in kinds)


def _is_object(value: object) -> bool:
    return isinstance(value, dict)


def _is_string(value: object) -> bool:
    return isinstance(value, str)


def _is_filled(value: object) -> bool:
    return isinstance(value, list) and bool(value)


def _is_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _is_number(value: object) -> bool:
    return type(value) in (int, float)


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and _is_number(value) and value > 0


def _is_size(value: object) -> bool:
    return isinstance(value, int) and _is_number(value) and value >= 0


def _is_anything(_value: object) -> bool:
    return True


NOTE = Keyword(ANY, _is_anything, "anything")
DEFINITIONS = Keyword(ANY, _is_object, "an object of schemas")
LIMIT = Keyword(NUMBER, _is_number, "a number")
SIZE = Keyword(ARRAY, _is_size, "an integer >= 0")

KEYWORDS: Mapping[str, Keyword] = {
    "title": NOTE,
    "description": NOTE,
    "$schema": NOTE,
    "$comment": NOTE,
    "default": NOTE,  # OpenAI takes it, and openai-agents sends it (its issue 4390)
    "type": Keyword(ANY, _is_type, f"one or several of {', '.join(map(repr, TYPES))}"),
    "enum": Keyword(ANY, _is_filled, "an array of values, not empty"),
    "const": Keyword(ANY, _is_anything, "anything"),
    "anyOf": Keyword(ANY, _is_filled, "an array of schemas, not empty"),
    "$ref": Keyword(ANY, _is_string, "a string"),
    "$defs": DEFINITIONS,
    "definitions": DEFINITIONS,
    "properties": Keyword(OBJECT, _is_object, "an object of schemas"),
    "required": Keyword(OBJECT, _is_names, "an array of strings"),
    "additionalProperties": Keyword(OBJECT, _is_anything, "false"),
    "items": Keyword(ARRAY, _is_object, "a schema"),
    "minItems": SIZE,
    "maxItems": SIZE,
    "pattern": Keyword(STRING, _is_string, "a regular expression"),
    "format": Keyword(STRING, lambda value: value in FORMATS, f"one of {', '.join(map(repr, FORMATS))}"),
    "multipleOf": Keyword(NUMBER, _is_positive, "a number > 0"),
    "minimum": LIMIT,
    "maximum": LIMIT,
    "exclusiveMinimum": LIMIT,
    "exclusiveMaximum": LIMIT,
}


class _StrictSchema:
    """One walk over a schema, counting what the sizes limit and remembering what is referred to."""

    def __init__(self, root: JSONObject, site: SchemaSite, patterns: Patterns) -> None:
        self.root = root
        self.site = site
        self.patterns = patterns
        self.properties = 0
        self.enum_values = 0
        self.name_chars = 0
        self.seen: set[int] = set()
        self.references: list[tuple[Context, JSONObject]] = []
        self.resolved: set[int] = set()

    def check(self) -> None:
        if self.root.get("type") != "object":
            kind = quote(self.root.get("type"))
            raise self.site.fault(f"schema must be a JSON Schema of 'type: \"object\"', got 'type: {kind}'.")
        if "anyOf" in self.root:
            raise self.fault((), "'anyOf' is not permitted at the root.")
        self.schema(self.root, (), 0)
        for context, node in self.references:
            self.resolve(node, context)

    def fault(self, context: Context, text: str) -> InvalidRequest:
        return self.site.fault(f"In context={tuple(map(short, context))!r}, {text}")

    def schema(self, node: object, context: Context, level: int) -> None:
        if not isinstance(node, dict):
            raise self.fault(context, f"schema must be an object, but got {given(node)} instead.")
        self.seen.add(id(node))
        if len(self.seen) > MAX_SUBSCHEMAS:
            raise self.fault(context, f"the schema holds more than the {MAX_SUBSCHEMAS} schemas allowed.")
        types = self.types(node, context)
        self.keywords(node, types, context)
        self.sizes(node, context)
        self.values(node, context)
        self.pattern(node.get("pattern"), context)
        if "$ref" in node:
            self.references.append((context, node))
        if types & (OBJECT | ARRAY):
            level += 1
            if level > MAX_LEVELS:
                raise self.fault(context, f"the schema nests deeper than {MAX_LEVELS} levels.")
        if "object" in types:
            self.properties_of(node, context)
        if "array" in types and "items" not in node:
            raise self.fault(context, "array schema missing items.")
        for within, step in _subschemas(node):
            self.schema(within, context + step, level)

    def types(self, node: JSONObject, context: Context) -> frozenset[str]:
        kinds = node.get("type", [])
        if not node.keys() & {"type", "anyOf", "$ref", "enum", "const"}:
            raise self.fault(context, "schema must have a 'type' key.")
        return frozenset(kind for kind in (kinds if isinstance(kinds, list) else [kinds]) if isinstance(kind, str))

    def keywords(self, node: JSONObject, types: frozenset[str], context: Context) -> None:
        for name, value in node.items():
            keyword = KEYWORDS.get(name)
            if keyword is None:
                raise self.fault(context, f"'{short(name)}' is not permitted.")
            if not keyword.fits(value):
                raise self.fault(context, f"'{name}' must be {keyword.wanted}, but is {given(value)}.")
            if keyword.types and not keyword.types & types:
                wanted = " or ".join(f"'{kind}'" for kind in sorted(keyword.types))
                raise self.fault(context, f"'{name}' is only permitted where 'type' is {wanted}.")

    def properties_of(self, node: JSONObject, context: Context) -> None:
        if node.get("additionalProperties") is not False:
            raise self.fault(context, "'additionalProperties' is required to be supplied and to be false.")
        properties, required = _keys(node.get("properties")), _keys(node.get("required"))
        absent = [name for name in properties if name not in required]
        if absent:
            raise self.fault(
                context,
                "'required' is required to be supplied and to be an array including every key in properties. "
                f"Missing '{short(absent[0])}'.",
            )
        extra = [name for name in required if name not in properties]
        if extra:
            raise self.fault(context, f"extra required key '{short(extra[0])}' supplied, which is not in properties.")

    def sizes(self, node: JSONObject, context: Context) -> None:
        names = [*_keys(node.get("properties")), *_keys(node.get("$defs")), *_keys(node.get("definitions"))]
        values = _list(node.get("enum"))
        self.properties += len(_keys(node.get("properties")))
        self.enum_values += len(values)
        self.name_chars += sum(map(len, names)) + sum(map(_chars, values)) + _chars(node.get("const"))
        self.limit(context, "properties", self.properties, MAX_PROPERTIES)
        self.limit(context, "enum values", self.enum_values, MAX_ENUM_VALUES)
        self.limit(context, "characters of names, enum and const values", self.name_chars, MAX_NAME_CHARS)
        if len(values) > LONG_ENUM and all(isinstance(value, str) for value in values):
            chars = sum(map(_chars, values))
            self.limit(context, f"characters in an enum of more than {LONG_ENUM} values", chars, MAX_LONG_ENUM_CHARS)

    def limit(self, context: Context, what: str, count: int, allowed: int) -> None:
        if count > allowed:
            raise self.fault(context, f"the schema has too many {what}: {count}, allowed are {allowed}.")

    def values(self, node: JSONObject, context: Context) -> None:
        """enum and const must be of the schema's own type, or nothing could ever be answered."""
        if "type" not in node:
            return
        kinds = _list(node["type"]) or [node["type"]]
        classes = {each for kind in kinds if isinstance(kind, str) for each in TYPES[kind]}
        for value in _list(node.get("enum")) + ([node["const"]] if "const" in node else []):
            if type(value) not in classes:
                raise self.fault(context, f"{quote(value)} is not of type {quote(node['type'])}.")

    def pattern(self, pattern: object, context: Context) -> None:
        if isinstance(pattern, str) and (reason := self.patterns.fault(pattern)):
            raise self.fault(context, f"pattern {quote(pattern)} is refused: {reason}.")

    def resolve(self, node: JSONObject, context: Context) -> None:
        """A reference must lead, over others or not, to a schema of this document that says something itself."""
        passed: set[int] = set()
        while "$ref" in node and id(node) not in self.resolved:
            if id(node) in passed:
                raise self.fault(context, f"reference {quote(node['$ref'])} leads back to itself.")
            passed.add(id(node))
            node = self.target(str(node["$ref"]), context)
        self.resolved |= passed

    def target(self, reference: str, context: Context) -> JSONObject:
        if not reference.startswith("#"):
            raise self.fault(context, f"reference {quote(reference)} is remote. Only '#…' is permitted.")
        node = _pointed(self.root, unquote(reference[1:]))
        if not isinstance(node, dict) or id(node) not in self.seen:
            raise self.fault(context, f"reference {quote(reference)} can't be resolved to a schema of this document.")
        return node


def _subschemas(node: JSONObject) -> Iterator[tuple[object, Context]]:
    for keyword in ("$defs", "definitions", "properties"):
        named = node.get(keyword)
        if isinstance(named, dict):
            yield from ((within, (keyword, name)) for name, within in named.items())
    if "items" in node:
        yield node["items"], ("items",)
    yield from ((within, ("anyOf", str(index))) for index, within in enumerate(_list(node.get("anyOf"))))


INDEX = re.compile(r"0|[1-9][0-9]{0,8}")


def _pointed(root: JSONObject, pointer: str) -> object:
    """What a JSON pointer (`/$defs/a~1b`) points at, None where nothing is. Source: RFC 6901."""
    target: object = root if pointer == "" or pointer.startswith("/") else None
    for step in pointer.split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(target, list):
            index = int(name) if INDEX.fullmatch(name) else len(target)
            target = target[index] if index < len(target) else None
        else:
            target = target.get(name) if isinstance(target, dict) else None
    return target


def _keys(value: object) -> Mapping[str, object]:
    """The names in an object or an array of them, as keys: to be looked up and kept in order."""
    if isinstance(value, dict):
        return value
    return dict.fromkeys(value) if isinstance(value, list) else {}


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _chars(value: object) -> int:
    return len(value) if isinstance(value, str) else 0
