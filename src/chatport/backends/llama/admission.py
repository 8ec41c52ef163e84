"""Who may generate, and who waits: first come, first served, over lanes and cells.

A lane is one of the engine's slots, a cell is room for one token in the cache that the slots share. Every choice holds
one lane and the cells of its prompt and longest answer from before it starts until it has ended: so the cache can
never run full in the middle of an answer, and a single request may still have the whole window. (llama.cpp would end
every running answer with an error if it did run full; its own queue is not first in, first out either.)

A request with several choices waits once. It then holds as many lanes as are free, but leaves one to the others while
any of them waits. No clock, no I/O: `begin` is called, perhaps at once, for each lane that a request is given.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from chatport.wire.errors import Unavailable

FIRST_GUESS = 1.0
"""Seconds that a choice takes, before any has ended."""
SHORTEST_WAIT, LONGEST_WAIT = 1.0, 60.0
"""Seconds; bounds of what a refused client is told."""
WEIGHT_OF_LAST = 0.1
"""How much the last choice's time counts in the average."""


class Entry:
    """One request: `choices` lanes in all, at most `width` at once, each with `cells`."""

    def __init__(self, begin: Callable[[], None], *, cells: int, choices: int = 1, width: int | None = None) -> None:
        self.begin = begin
        self.cells = cells
        self.wanted = choices
        self.width = choices if width is None else width
        self.lanes = 0


class Admission:
    """lanes: choices at once; cells: tokens in all of them; queue: requests that may wait."""

    def __init__(self, *, lanes: int, cells: int, queue: int) -> None:
        self.lanes = lanes
        self.cells = cells
        self.queue = queue
        self.free_lanes = lanes
        self.free_cells = cells
        self._waiting: deque[Entry] = deque()
        self._admitted: list[Entry] = []
        self._seconds = FIRST_GUESS

    @property
    def waiting(self) -> int:
        """Requests that hold nothing yet."""
        return len(self._waiting)

    def enter(self, entry: Entry) -> None:
        """Lets the request in or has it wait. Raises Unavailable when the queue is full."""
        self._waiting.append(entry)
        self._dispatch()
        if entry in self._waiting and len(self._waiting) > self.queue:
            self._waiting.remove(entry)
            raise Unavailable(
                f"The model is busy: {self.queue} requests are waiting already.", retry_after=self._expected_wait()
            )

    def release(self, entry: Entry, seconds: float) -> None:
        """One of the request's choices has ended; it ran this long."""
        entry.lanes -= 1
        self.free_lanes += 1
        self.free_cells += entry.cells
        self._seconds += WEIGHT_OF_LAST * (seconds - self._seconds)
        self._dispatch()

    def withdraw(self, entry: Entry) -> None:
        """The request wants no more lanes; those it holds are released when their choices have ended."""
        entry.wanted = 0
        if entry in self._waiting:
            self._waiting.remove(entry)
        self._dispatch()

    def _dispatch(self) -> None:
        self._admitted = [entry for entry in self._admitted if entry.wanted]
        for entry in self._next():
            entry.wanted -= 1
            entry.lanes += 1
            self.free_lanes -= 1
            self.free_cells -= entry.cells
            entry.begin()

    def _next(self) -> Iterator[Entry]:
        """Who gets the next lane: those already in, as they came, then the head of the queue, never past it."""
        while True:
            entry = next((entry for entry in self._admitted if self._may_widen(entry)), None)
            if entry is None:
                if not self._waiting or not self._fits(self._waiting[0]):
                    return
                entry = self._waiting.popleft()
                self._admitted.append(entry)
            yield entry

    def _may_widen(self, entry: Entry) -> bool:
        most = max(1, self.lanes - 1) if self._waiting else self.lanes
        return entry.wanted > 0 and entry.lanes < min(most, entry.width) and self._fits(entry)

    def _fits(self, entry: Entry) -> bool:
        return self.free_lanes > 0 and entry.cells <= self.free_cells

    def _expected_wait(self) -> float:
        turns = (len(self._waiting) + 1) / self.lanes
        return min(LONGEST_WAIT, max(SHORTEST_WAIT, self._seconds * turns))
