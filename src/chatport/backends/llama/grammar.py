"""What an answer may say, as a grammar that the engine holds the model to, token by token.

Lark, as llguidance reads it. An answer is a thought (where the model thinks), then text, JSON, or calls:

    start:  answer | thought answer
    answer: said | calls                  said: text or JSON; left out where a tool must be called
    calls:  trigger call more             in running text: everything up to a trigger, and then nothing but a call
    more:   anything | calls

After a call the model may say what it likes; the reader ends the turn at the first thing that is not another call
(`reader.py`). So it is the model that starts another call, and not a grammar that leaves it no choice.

Source: llguidance's docs/syntax.md; its own `StructTag` builds calls in running text in this way.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Literal

from msgspec import Struct

from chatport.backends.llama.calls import CUSTOM_CLOSES, CUSTOM_OPENS, CUSTOM_TRIGGER, CallFormat
from chatport.backends.llama.reasoning import Thinking
from chatport.wire.chat import Grammar

HEAD: Final = "%llguidance {}\n"
"""How the engine tells a grammar of this kind from its own."""
TERMINALS: Final = "TEXT: /(.|\\n)*/\nSPACE: /[ \\n]{0,8}/\n"

IdOf = Callable[[str], int | None]
"""The id of the control token that is spelled so; None where the spelling is text like any other."""
Kind = Literal["function", "custom"]


class Callee(Struct, frozen=True):
    """A tool that may be called."""

    name: str
    schema: str | None = None
    """Of a function's arguments, as `schemas.guided` gives it; None for a custom tool."""
    grammar: Grammar | None = None
    """Of a custom tool's input; None: any text."""


class Demand(Struct, frozen=True, kw_only=True):
    """What the grammar must let through, and nothing else."""

    tools: Sequence[Callee] = ()
    must_call: bool = False
    several: bool = False
    schema: str | None = None
    """Of an answer in JSON, as `schemas.guided` gives it; None for text."""
    thinking: Thinking | None = None
    """How the model shows thoughts, where it may begin with one."""
    thinks_already: bool = False
    """The prompt has opened the thought."""


def grammar_of(demand: Demand, form: CallFormat, id_of: IdOf) -> str | None:
    """The grammar; None where everything may be said."""
    if demand.schema is None and not demand.tools:
        return None
    rules = "\n".join(_Rules(demand, form, id_of).all())
    return f"{HEAD}{rules}\n{TERMINALS}"


class _Rules:
    def __init__(self, demand: Demand, form: CallFormat, id_of: IdOf) -> None:
        self._demand = demand
        self._form = form
        self._id_of = id_of
        self._kinds: list[Kind] = [
            kind for kind in _KINDS if any((tool.schema is None) == (kind == "custom") for tool in demand.tools)
        ]

    def all(self) -> Iterator[str]:
        yield f"start: {self._start()}"
        yield f"answer: {self._answer()}"
        yield from self._thought()
        yield from self._said()
        for kind in self._kinds:
            yield from self._heads(kind)
        yield from self._calls()
        if self._demand.several:
            yield " | ".join(["more: TEXT", *self._begun("next", self._with_triggers())])

    def _start(self) -> str:
        marks, space = self._demand.thinking, "" if self._is_free else "SPACE "
        if marks is None:
            return "answer"
        if self._demand.thinks_already:
            return f"thought {space}answer"
        return f"answer | SPACE {self._mark(marks.opens)} thought {space}answer"

    @property
    def _is_free(self) -> bool:
        """Whether the answer may be any text."""
        return self._demand.schema is None and not self._demand.must_call

    def _answer(self) -> str:
        calls = self._begun("head" if self._is_free else "trigger", self._kinds)
        return " | ".join(calls if self._demand.must_call else ["said", *calls])

    def _begun(self, how: str, kinds: Sequence[Kind]) -> Iterator[str]:
        """A call of each kind with what comes before and after it."""
        more = " more" if self._demand.several else ""
        for kind in kinds:
            before = f"{how}_{kind} " if self._trigger(kind) else ""
            yield f"{before}{kind}{more}"

    def _with_triggers(self) -> list[Kind]:
        return [kind for kind in self._kinds if self._trigger(kind)]

    def _trigger(self, kind: Kind) -> str:
        return CUSTOM_TRIGGER if kind == "custom" else self._form.trigger

    def _thought(self) -> Iterator[str]:
        if (marks := self._demand.thinking) is not None:
            yield self._up_to("thought", "TEXT", marks.closes)

    def _said(self) -> Iterator[str]:
        if self._demand.must_call:
            return
        if self._demand.schema is not None:
            yield f"said: %json {self._demand.schema}"
            return
        yield "said: FIRST"
        yield f"FIRST: /(.|\\n)*/{''.join(map(_not_beginning_with, self._reserved()))}"

    def _reserved(self) -> Iterator[str]:
        """What an answer can't begin with, since it would then be something else."""
        if (marks := self._demand.thinking) is not None:
            yield marks.opens
        if not self._form.trigger and "function" in self._kinds:
            yield self._form.before_name

    def _heads(self, kind: Kind) -> Iterator[str]:
        """Text up to a trigger at an answer's beginning and after a call; and the trigger alone."""
        trigger = self._trigger(kind)
        if not trigger:
            return
        yield f"trigger_{kind}: {self._mark(trigger)}"
        if self._is_free:
            yield self._up_to(f"head_{kind}", "FIRST", trigger)
        if self._demand.several:
            yield self._up_to(f"next_{kind}", "TEXT", trigger)

    def _up_to(self, rule: str, text: str, mark: str) -> str:
        token = self._id_of(mark)
        return f"{rule}[lazy]: {text} {_literal(mark)}" if token is None else f"{rule}: {text} <[{token}]>"

    def _mark(self, mark: str) -> str:
        token = self._id_of(mark)
        return _literal(mark) if token is None else f"<[{token}]>"

    def _calls(self) -> Iterator[str]:
        functions = [tool for tool in self._demand.tools if tool.schema is not None]
        if functions:
            yield from self._functions(functions)
        customs = [tool for tool in self._demand.tools if tool.schema is None]
        if customs:
            yield f"custom: {' | '.join(f'custom_{number}' for number in range(len(customs)))}"
        for number, tool in enumerate(customs):
            yield from _custom(f"custom_{number}", tool)

    def _functions(self, functions: Sequence[Callee]) -> Iterator[str]:
        form = self._form
        again = f" ({_literal(form.between)} item)*" if form.between and self._demand.several else ""
        opens, closes = _literal(form.opens), _literal(form.closes)
        yield f"function: {opens} item{again} {closes}"
        yield f"item: {' | '.join(f'item_{number}' for number in range(len(functions)))}"
        for number, tool in enumerate(functions):
            before = _literal(f"{form.before_name}{tool.name}{form.before_arguments}")
            yield f'item_{number}: {before} arguments_{number} "}}"'
            yield f"arguments_{number}: %json {tool.schema}"


_KINDS: Final[tuple[Kind, ...]] = ("function", "custom")


def _custom(rule: str, tool: Callee) -> Iterator[str]:
    """The call of a custom tool, from its name on."""
    before = _literal(f"{tool.name}{CUSTOM_OPENS}")
    if tool.grammar is None:
        yield f"{rule}: {before} {rule}_input"
        yield f"{rule}_input[lazy]: TEXT {_literal(CUSTOM_CLOSES)}"
        return
    yield f"{rule}: {before} {rule}_input {_literal(CUSTOM_CLOSES)}"
    yield input_rule(f"{rule}_input", tool.grammar)


def input_rule(rule: str, grammar: Grammar) -> str:
    """A rule for what a client's own grammar lets through."""
    if grammar.syntax == "lark":
        return f"{rule}: %lark {{\n{grammar.definition}\n}}"
    pattern = grammar.definition.replace("\n", "\\n")
    return f"{rule}: /{_slashes_escaped(pattern)}/"


def _slashes_escaped(pattern: str) -> str:
    """As it must be between slashes; one that is escaped already stays so."""
    return "".join(f"\\{part}" if part == "/" else part for part in _atoms(pattern))


def _atoms(pattern: str) -> Iterator[str]:
    at = 0
    while at < len(pattern):
        size = 2 if pattern[at] == "\\" else 1
        yield pattern[at : at + size]
        at += size


def _not_beginning_with(text: str) -> str:
    return f" & ~(/(?s:{_quoted(text)}.*)/)"


def _quoted(text: str) -> str:
    return "".join(char if char.isalnum() else f"\\x{{{ord(char):x}}}" for char in text)


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
