"""Strict schemas made to order, each number another one: every keyword of the strict subset, in every place.

Small in what they ask for (short texts, few items), so that a small model comes to an end; nothing else is spared.
"""

from __future__ import annotations

import json
import random
import string
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import jsonschema

Schema = dict[str, Any]

DEEPEST = 3
"""Levels of objects and arrays within each other."""
PATTERNS = (
    "^[a-z]{2,6}$",
    "^(red|green|blue)$",
    "^[A-Z]{3}-[0-9]{2}$",
    "^\\d{3}$",
    "^[^\\s]{1,5}$",
    "^(ab?c){1,2}$",
    "^\\p{L}{2}$",
)
FORMATS = ("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid")
VALUES = ("Oslo", "北京", 'quo"te', "back\\slash", "new\nline", "", "émile", 7, -1, 2.5, True, None)


def strict_schema(number: int) -> Schema:
    """The schema of this number: an object, as the strict subset wants its root."""
    return _Maker(random.Random(number)).root()


def check_fits(value: Any, schema: Schema) -> None:
    """Raises jsonschema.ValidationError. By a library that the grammar's compiler has nothing of, in two things helped:
    Python's expressions know no \\p, and floats say that 0.29 is no multiple of 0.01."""
    patterns_in_python = json.dumps(schema).replace("\\\\p{L}", "[^\\\\W\\\\d_]")
    exact, wanted = (json.loads(text, parse_float=Decimal) for text in (json.dumps(value), patterns_in_python))
    jsonschema.validate(exact, wanted, jsonschema.Draft202012Validator)


class _Maker:
    def __init__(self, dice: random.Random) -> None:
        self._dice = dice

    def root(self) -> Schema:
        root = self._object(0)
        if self._dice.random() < 0.3:
            root["$defs"] = {"shared": self._value(DEEPEST)}
            root["properties"]["again"] = {"$ref": "#/$defs/shared"}
            root["required"].append("again")
        return root

    def _value(self, depth: int) -> Schema:
        leaves = [self._enum, self._const, self._string, self._integer, self._number, self._plain]
        nested: list[Callable[[int], Schema]] = [self._object, self._array, self._any_of]
        if depth < DEEPEST and self._dice.random() < 0.4:
            return self._dice.choice(nested)(depth + 1)
        return self._dice.choice(leaves)()

    def _object(self, depth: int) -> Schema:
        names = self._dice.sample(("name", "näme", "with space", "a-b", "x", "count", "$ref", "type"), k=self._count())
        return {
            "type": "object",
            "properties": {name: self._value(depth) for name in names},
            "required": names,
            "additionalProperties": False,
        }

    def _array(self, depth: int) -> Schema:
        low = self._dice.randint(0, 2)
        return {
            "type": "array",
            "items": self._value(depth),
            "minItems": low,
            "maxItems": low + self._dice.randint(0, 1),
        }

    def _any_of(self, depth: int) -> Schema:
        return {"anyOf": [self._value(depth), {"type": "null"}]}

    def _enum(self) -> Schema:
        return {"enum": self._dice.sample(VALUES, k=3)}

    def _const(self) -> Schema:
        return {"const": self._dice.choice(VALUES)}

    def _string(self) -> Schema:
        match self._dice.randrange(3):
            case 0:
                return {"type": "string", "pattern": self._dice.choice(PATTERNS)}
            case 1:
                return {"type": "string", "format": self._dice.choice(FORMATS)}
        low = self._dice.randint(0, 3)
        return {"type": "string", "minLength": low, "maxLength": low + 6}

    def _integer(self) -> Schema:
        low = self._dice.randint(-50, 50)
        bounds = {"minimum": low, "maximum": low + self._dice.randint(5, 99)}
        multiples = {"multipleOf": 5, "minimum": low, "maximum": max(5, bounds["maximum"])}
        return {"type": "integer", **self._dice.choice([bounds, {"exclusiveMinimum": low}, multiples])}

    def _number(self) -> Schema:
        steps = self._dice.choice([{}, {"multipleOf": 0.1}, {"multipleOf": 0.01}])
        return {"type": "number", "minimum": 0, "maximum": self._dice.choice([1, 10.5]), **steps}

    def _plain(self) -> Schema:
        return {"type": self._dice.choice(["boolean", "null", ["boolean", "null"], ["integer", "null"]])}

    def _count(self) -> int:
        return self._dice.randint(1, 3)


def letters(number: int) -> str:
    """A name for the schema of this number."""
    return "schema_" + "".join(string.ascii_lowercase[int(digit)] for digit in str(number))
