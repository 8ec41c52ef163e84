"""One answer: what has come of it, and how fast."""

from __future__ import annotations

import time
from collections.abc import Callable

from chatport.cli.chat.answers import Counted, Event

ENDINGS = {
    "length": "cut: the limit on tokens, or the model's window, is reached",
    "content_filter": "cut by the server's content filter",
}
"""Reasons to end that a person should hear of."""


class Turn:
    """Begins when it is made. `clock`: seconds, monotonic."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._begun = clock()
        self._first: float | None = None
        self._last = self._begun
        self._usage: Counted | None = None
        self._finish: str | None = None
        self.text = ""

    def add(self, event: Event) -> None:
        """Takes a piece in at the moment it came."""
        self.text += event.text
        self._finish = event.finish_reason or self._finish
        self._usage = event.usage or self._usage
        if event.text or event.reasoning:
            self._last = self._clock()
            if self._first is None:
                self._first = self._last

    @property
    def cut(self) -> str | None:
        """Why the answer is not whole, as far as the server said so."""
        return ENDINGS.get(self._finish or "")

    @property
    def summary(self) -> str:
        """Tokens, tokens a second, time until the first one: as much of it as is known."""
        parts = []
        if self._usage is not None:
            parts.append(f"{self._usage.prompt_tokens} + {self._usage.completion_tokens} tokens")
            if (speed := self._speed(self._usage.completion_tokens)) is not None:
                parts.append(f"{speed:.1f} tokens/s")
        if self._first is not None:
            parts.append(f"first after {self._first - self._begun:.2f} s")
        return " · ".join(parts)

    def _speed(self, tokens: int) -> float | None:
        """Tokens a second from the first one on; None where all came at once."""
        if self._first is None or tokens < 2 or self._last <= self._first:
            return None
        return (tokens - 1) / (self._last - self._first)
