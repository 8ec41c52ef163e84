"""Reads calls of tools while a model writes them.

The grammar lets nothing else come (`grammar.py`), so what does not fit is a broken promise of the engine's and not a
model's mistake. Written as a generator that asks for more text where it has read all: so the form of a call can be
read from top to bottom.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from enum import Enum, auto
from typing import Final, TypeAlias

from msgspec import Struct

from chatport.backends.llama.calls import CUSTOM_CLOSES, CUSTOM_OPENS, CUSTOM_TRIGGER, CallFormat
from chatport.backends.llama.tape import open_end


class Named(Struct, frozen=True):
    """A call has begun, of the tool with this name."""

    name: str
    custom: bool = False


class Written(Struct, frozen=True):
    """More of a call's arguments, or of a custom tool's input."""

    text: str


class Mark(Enum):
    MADE = auto()
    """A call is whole."""
    OVER = auto()
    """No further call follows here; what comes next is ordinary text."""
    MORE = auto()
    """All text is read."""


Token: TypeAlias = Named | Written | Mark
Script: TypeAlias = Generator[Token, None, None]

BRACKETS: Final = re.compile(r'["{}\[\]]')
STRING_END: Final = re.compile(r'(?:[^"\\]|\\.)*?"', re.DOTALL)


class NoCall(Exception):
    """The text is no call in this form; what stands there instead."""


class CallScanner:
    """Push what the model writes, from the first character of a trigger on, and get what it says."""

    def __init__(self, form: CallFormat) -> None:
        self.rest = ""
        """What is not read yet: after OVER, the text that follows the calls."""
        self._form = form
        self._script = self._read()

    def push(self, text: str) -> Iterator[Token]:
        """What this text adds. Raises NoCall."""
        self.rest += text
        for token in self._script:
            if token is Mark.MORE:
                return
            yield token

    def _read(self) -> Script:
        if (yield from self._comes(CUSTOM_TRIGGER, self._form.start)):
            yield from self._custom()
        else:
            yield from self._functions(self._form)
        yield Mark.OVER

    def _functions(self, form: CallFormat) -> Script:
        yield from self._expect(form.trigger + form.opens)
        while True:
            yield from self._expect(form.before_name)
            yield Named((yield from self._up_to('"')))
            yield from self._expect(form.before_arguments.removeprefix('"'))
            yield from self._object()
            yield from self._expect("}")
            yield Mark.MADE
            if form.between is None:
                break
            if not form.closes:
                yield from self._at_least(1)
                if not self.rest.startswith(form.between[0]):
                    return
            elif not (yield from self._comes(form.between, form.closes)):
                break
            yield from self._expect(form.between)
        yield from self._expect(form.closes)

    def _custom(self) -> Script:
        yield from self._expect(CUSTOM_TRIGGER)
        yield Named((yield from self._up_to('"')), custom=True)
        yield from self._expect(CUSTOM_OPENS.removeprefix('"'))
        while (end := self.rest.find(CUSTOM_CLOSES)) < 0:
            yield from self._say(len(self.rest) - open_end(self.rest, [CUSTOM_CLOSES]))
            yield Mark.MORE
        yield from self._say(end)
        yield from self._expect(CUSTOM_CLOSES)
        yield Mark.MADE

    def _object(self) -> Script:
        """A JSON object, said as it comes."""
        yield from self._at_least(1)
        depth, quoted = 0, False
        while True:
            end, depth, quoted = _walk(self.rest, depth, quoted=quoted)
            yield from self._say(end)
            if not depth and not quoted:
                return
            yield Mark.MORE

    def _say(self, characters: int) -> Script:
        text, self.rest = self.rest[:characters], self.rest[characters:]
        if text:
            yield Written(text)

    def _at_least(self, characters: int) -> Script:
        while len(self.rest) < characters:
            yield Mark.MORE

    def _expect(self, literal: str) -> Script:
        yield from self._at_least(len(literal))
        if not self.rest.startswith(literal):
            raise NoCall(f"{self.rest[: len(literal) + 20]!r} where {literal!r} was expected")
        self.rest = self.rest[len(literal) :]

    def _comes(self, one: str, other: str) -> Generator[Token, None, bool]:
        """Which of two texts comes next: True for the first."""
        while True:
            if self.rest.startswith((one, other)):
                return self.rest.startswith(one)
            if not one.startswith(self.rest) and not other.startswith(self.rest):
                raise NoCall(f"{self.rest[:40]!r} where {one!r} or {other!r} was expected")
            yield Mark.MORE

    def _up_to(self, end: str) -> Generator[Token, None, str]:
        while end not in self.rest:
            yield Mark.MORE
        text, _, self.rest = self.rest.partition(end)
        return text


def _walk(text: str, depth: int, *, quoted: bool) -> tuple[int, int, bool]:
    """Where a JSON object that is read at this depth ends in the text, or how far it can be said: (up to where, depth
    there, whether inside a string). An escape that is cut in two is left for the next time."""
    at = 0
    while at < len(text):
        if quoted:
            end = STRING_END.match(text, at)
            if end is None:
                return _whole_escapes(text), depth, True
            at, quoted = end.end(), False
            continue
        bracket = BRACKETS.search(text, at)
        if bracket is None:
            return len(text), depth, False
        at = bracket.end()
        match bracket[0]:
            case '"':
                quoted = True
            case "{" | "[":
                depth += 1
            case _:
                depth -= 1
                if not depth:
                    return at, 0, False
    return at, depth, quoted


def _whole_escapes(text: str) -> int:
    """The end of the text, or the place of a backslash there that escapes what has not come yet."""
    backslashes = len(text) - len(text.rstrip("\\"))
    return len(text) - backslashes % 2
