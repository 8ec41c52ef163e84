"""What a home of counters promises, whether one process has it or many share it.

All times that callers give are seconds of one clock that does not go back; a home that is shared between machines goes
by its own. Such a home must also give back the places of a process that died: no one else would.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from chatport.counters.buckets import Bucket


class Rule(Struct, frozen=True):
    """So many in `period` seconds, and as many at once; period None: so many at the same time."""

    amount: int
    period: float | None

    @property
    def rate(self) -> float:
        """What comes back in a second."""
        return 0.0 if self.period is None else self.amount / self.period


class Draw(Struct, frozen=True):
    """What is wanted of one bucket. `enforced` False: where there is too little it is skipped and refuses nothing."""

    name: str
    rule: Rule
    cost: float
    enforced: bool = True


class Taken(Struct, frozen=True):
    """Everything was taken but what was `skipped`, indexes of draws that were not enforced."""

    buckets: tuple[Bucket, ...]
    """One for each draw, as it is now."""
    skipped: tuple[int, ...] = ()


class Refused(Struct, frozen=True):
    """Nothing was taken, since there was too little for one draw. Of several it is the one to wait for longest; places
    in use come last, since how long they are is not known."""

    buckets: tuple[Bucket, ...]
    """One for each draw, as it is now."""
    draw: int
    """The index of the one that refused."""
    wait: float
    """Seconds until there is enough if nobody else takes any; infinite where time alone does not help."""


class Counters(Protocol):
    """Each call is one step: no other call sees, or comes between, a part of it."""

    async def take(self, draws: Sequence[Draw], now: float) -> Taken | Refused:
        """Takes all of it or nothing. The names of the draws differ from each other."""
        ...

    async def correct(self, draws: Sequence[Draw], now: float) -> tuple[Bucket, ...]:
        """Takes the costs whether they are there or not; those below 0 are given back. The buckets afterwards."""
        ...

    async def peek(self, draws: Sequence[Draw], now: float) -> tuple[Bucket, ...]:
        """The buckets as they are; costs are not looked at."""
        ...
