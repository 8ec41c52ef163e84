"""llguidance, the compiler of grammars: the one file that knows it.

The engine carries the same library inside, but drops a grammar that does not compile without a word (engine.md). So
every grammar passes here first.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

CACHED: Final = 256
"""Grammars known to be good: agents send the same tools with every request."""
LONGEST_CACHED: Final = 1 << 16
"""Characters."""
SHOWN: Final = 300
"""Characters of the compiler's message that a client sees."""


class Uncompilable(Exception):
    """The grammar can't be held. The message is the compiler's, a line."""


def compiled(grammar: str) -> None:
    """Returns where the grammar compiles. Raises Uncompilable. A millisecond, for large schemas a hundred of them."""
    fault = _known(grammar) if len(grammar) <= LONGEST_CACHED else _fault(grammar)
    if fault is not None:
        raise Uncompilable(fault)


@lru_cache(maxsize=CACHED)
def _known(grammar: str) -> str | None:
    return _fault(grammar)


def _fault(grammar: str) -> str | None:
    from llguidance import LLMatcher  # noqa: PLC0415  40 ms that a server without such requests need not spend

    failed, messages = LLMatcher.validate_grammar_with_warnings(grammar)
    return _in_a_line(messages[0]) if failed else None


def _in_a_line(message: str) -> str:
    """Without the compiler's picture of the place in the grammar, which is ours and not the client's."""
    told = [line.strip() for line in message.splitlines() if " | " not in line and line.strip(" ^")]
    return " ".join(told)[:SHOWN]
