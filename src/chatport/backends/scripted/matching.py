"""A short text that a regular expression matches, found by reading the expression and never by running it.

The expressions come from clients, and there is no text so short that a hostile one could not run for hours on it. The
parser of the standard library takes them apart (a private module, unchanged in shape since Python 2.0); of each choice
the first and of each repeat the fewest are written. What needs more than that, look-around, back references, word
boundaries, is not met.
"""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Iterable
from typing import Any

MAX_STEPS = 20_000
"""Parts of an expression that are walked, repeats counted each time."""

_parser: Any = importlib.import_module("re._parser")

_CANDIDATES = "aA0_- .~\né一"
"""Characters for a class, in order of preference, before those that it names itself."""


class Unmet(ValueError):
    """Nothing was found that fits."""


class TooMuch(Unmet):
    """What fits would be too large, and so would be any other way to it."""


def text_matching(pattern: str, low: int = 0, high: float = math.inf) -> str:
    """A text of `low` to `high` characters that the pattern matches as a whole. Raises Unmet."""
    try:
        parts = _parser.parse(pattern)
    except (re.error, OverflowError, RecursionError) as exc:
        raise Unmet(pattern) from exc
    for repeats in dict.fromkeys((0, 1, low)):
        text = _Writer(repeats).write(parts)
        if low <= len(text) <= high:
            return text
    raise Unmet(pattern)


class _Writer:
    """Writes what an expression matches; a repeat is written `repeats` times, or as near to that as it allows."""

    def __init__(self, repeats: int) -> None:
        self._repeats = repeats
        self._text: list[str] = []
        self._steps = 0
        self._ended = False

    def write(self, parts: Any) -> str:
        try:
            self._sequence(parts)
        except RecursionError as exc:
            raise TooMuch from exc
        return "".join(self._text)

    def _sequence(self, parts: Iterable[tuple[Any, Any]]) -> None:
        for kind, argument in parts:
            self._step()
            self._part(str(kind), argument)

    def _part(self, kind: str, argument: Any) -> None:
        match kind:
            case "LITERAL":
                self._put(chr(argument))
            case "NOT_LITERAL":
                self._put(_member([("NEGATE", None), ("LITERAL", argument)]))
            case "ANY":
                self._put("a")
            case "IN":
                self._put(_member(argument))
            case "BRANCH":
                self._sequence(argument[1][0])
            case "SUBPATTERN":
                self._sequence(argument[3])
            case "MAX_REPEAT" | "MIN_REPEAT":
                self._repeat(*argument)
            case "AT":
                self._at(str(argument))
            case _:
                raise Unmet(kind)

    def _repeat(self, low: int, high: int, parts: Any) -> None:
        for _ in range(min(int(high), max(int(low), self._repeats))):
            self._step()
            self._sequence(parts)

    def _at(self, place: str) -> None:
        if place.startswith("AT_END"):
            self._ended = True
        elif not place.startswith("AT_BEGINNING") or self._text:
            raise Unmet(place)

    def _put(self, char: str) -> None:
        if self._ended or "\ud800" <= char <= "\udfff":
            raise Unmet("text after the end, or half a character")
        self._text.append(char)

    def _step(self) -> None:
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise TooMuch


def _member(items: list[tuple[Any, Any]]) -> str:
    """A character of a class as the parser gives it."""
    negated = str(items[0][0]) == "NEGATE"
    named: list[str] = [
        chr(value if isinstance(value, int) else value[0]) for kind, value in items if str(kind) in _NAMING
    ]
    candidates: list[str] = [*_CANDIDATES, *named]
    for char in candidates:
        if any(_is_in(char, str(kind), value) for kind, value in items) != negated:
            return char
    raise Unmet("an empty class")


_NAMING = {"LITERAL", "RANGE"}


def _is_in(char: str, kind: str, value: Any) -> bool:
    match kind:
        case "LITERAL":
            return bool(ord(char) == value)
        case "RANGE":
            return bool(value[0] <= ord(char) <= value[1])
        case "CATEGORY":
            name = str(value)
            return _is_of_category(char, name.rpartition("_")[2]) != ("_NOT_" in name)
    return False


def _is_of_category(char: str, name: str) -> bool:
    match name:
        case "DIGIT":
            return char.isdecimal()
        case "SPACE":
            return char.isspace()
        case "WORD":
            return char.isalnum() or char == "_"
    raise Unmet(name)
