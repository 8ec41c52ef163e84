"""Grammars that hurt whoever compiles them hurt a child process, and are refused."""

from __future__ import annotations

import json
import time

import pytest

from chatport.backends.llama.compiler import LONGEST, SECONDS, TOO_DEEP, TOO_LONG, Uncompilable, compiled

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def fault(grammar: str) -> str:
    with pytest.raises(Uncompilable) as found:
        compiled(grammar)
    return str(found.value)


def chain(links: int) -> str:
    rules = "\n".join(f'r{link}: "x" r{link + 1}' for link in range(links))
    return f'start: r0\n{rules}\nr{links}: "y"\n'


def references(links: int) -> str:
    named = {
        f"d{link}": {"type": "object", "properties": {"l": {"$ref": f"#/$defs/d{link + 1}"}}, "required": ["l"]}
        for link in range(links)
    }
    schema = {"type": "object", "properties": {"a": {"$ref": "#/$defs/d0"}}, "$defs": {**named, f"d{links}": {}}}
    return f"start: %json {json.dumps(schema)}\n"


def intersection(terms: int) -> str:
    """Each term doubles what the lexer has to keep apart."""
    all_of = " & ".join(f"/(?s:.*[^{c}]{{{i}}}.*{c}.{{30}})/" for i, c in enumerate(LETTERS[:terms], 5))
    return f"start: T\nT: {all_of}\n"


def test_good_ones_pass() -> None:
    compiled('start: "a"\n')
    compiled('start: <[128010]> "a"\n')


@pytest.mark.parametrize("grammar", [chain(5000), references(3000)], ids=["rules", "references"])
def test_what_overflows_the_stack_is_refused(grammar: str) -> None:
    assert fault(grammar) == TOO_DEEP
    compiled('start: "b"\n')


def test_what_takes_for_ever_is_ended() -> None:
    began = time.monotonic()
    assert fault(intersection(26)) == TOO_LONG
    assert time.monotonic() - began < SECONDS + 20
    compiled('start: "c"\n')


def test_what_only_fails_as_a_matcher_is_refused_too() -> None:
    assert "fuel exhausted" in fault(intersection(4))


def test_what_is_too_long_is_not_looked_at() -> None:
    assert f"allowed are {LONGEST}" in fault("x" * (LONGEST + 1))


def test_a_thousand_properties_are_nothing_to_it() -> None:
    schema = {"type": "object", "properties": {f"p{number}": {"type": "string"} for number in range(1000)}}
    compiled(f"start: %json {json.dumps(schema)}\n")
