"""Which of a model's targets is asked, and which next: order, health, cool-down, retries.

The rules are pure functions of what is known, the time and a random number; `Routing` keeps what is known. All of it
is about the order only: a target that cools is asked after its peers, and when nobody else is left it is asked all the
same. After its cool-down one request at a time tries it (half-open), until one succeeds.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable

from msgspec import Struct

from chatport.targets import Target
from chatport.wire.errors import ApiError, InternalError, RateLimited, RetryLater

COOL_AFTER = 3
"""Failures in a row after which a target cools. One that can't be used as it is configured cools at once."""

COOL_FIRST = 2.0
"""Seconds of the first cool-down; each further failure doubles it."""

COOL_MOST = 60.0
"""Seconds of the longest. Precedent: what providers ask for in retry-after is rarely more."""

SLEEP_BUDGET = 2.0
"""Seconds that one request may sleep between its attempts, all in all: longer waits are the client's to decide."""

BACKOFF = 0.25
"""Seconds before the first retry, doubling, with up to half of it taken off at random."""


class Health(Struct, frozen=True):
    """What is known of a target."""

    failures: int = 0
    """In a row."""
    cools_until: float = 0.0
    """Seconds, monotonic."""


HEALTHY = Health()


def after_failure(health: Health, error: ApiError, now: float) -> Health:
    """What is known after an attempt that failed. A client's error says nothing of the target."""
    if error.status < 429:
        return health
    failures = health.failures + 1
    unusable = isinstance(error, InternalError) and not error.transient
    asked = error.retry_after if isinstance(error, RetryLater) else None
    cool = 0.0
    if failures >= COOL_AFTER or unusable:
        cool = COOL_FIRST * 2.0 ** min(max(failures - COOL_AFTER, 0), 10)
    if isinstance(error, RateLimited):
        cool = max(cool, asked or COOL_FIRST)
    return Health(failures, max(health.cools_until, now + min(cool, COOL_MOST)) if cool else health.cools_until)


def wait_before(error: ApiError, round_: int, slept: float, draw: float) -> float | None:
    """Seconds to sleep before everything is tried again; None where the client had better hear of it now.

    `round_`: rounds that have failed, from 1; `slept`: seconds so far; `draw`: from 0 to 1.
    """
    if not error.transient:
        return None
    wait = BACKOFF * 2.0 ** (round_ - 1) * (1 - draw / 2)
    if isinstance(error, RetryLater) and error.retry_after is not None:
        wait = max(wait, error.retry_after)
    return wait if slept + wait <= SLEEP_BUDGET else None


class Standing:
    """One target now."""

    __slots__ = ("health", "in_flight", "probing")

    def __init__(self) -> None:
        self.health = HEALTHY
        self.in_flight = 0
        self.probing = False
        """A request is out that finds out whether it works again."""

    def enter(self) -> bool:
        """A request goes there; `leave` must follow, with what this returns: whether it finds out for the others. (No
        context: that would cost three times as much.)"""
        self.in_flight += 1
        if self.health.failures == 0 or self.probing:
            return False
        self.probing = True
        return True

    def leave(self, probes: bool) -> None:
        """The request is there no more."""
        self.in_flight -= 1
        if probes:
            self.probing = False

    def succeeded(self) -> None:
        """An attempt brought an answer."""
        self.health = HEALTHY

    def failed(self, error: ApiError, now: float) -> None:
        """An attempt failed."""
        self.health = after_failure(self.health, error, now)

    def stands_back(self, now: float) -> bool:
        """Whether its peers go first: it cools, or has cooled and is being tried by another request."""
        return self.health.failures > 0 and (now < self.health.cools_until or self.probing)


def rank(target: Target, standing: Standing, now: float, draw: float) -> tuple[bool, int, float, float]:
    """What targets are sorted by: who stands back last, then priority, the load for its weight, chance by weight."""
    load = standing.in_flight / target.weight
    chance = -math.log(1 - draw) / target.weight
    return standing.stands_back(now), target.priority, load, chance


class Routing:
    """What is known of every target, by the name of its backend."""

    def __init__(self, draw: Callable[[], float] = random.random) -> None:
        self._standings: dict[str, Standing] = {}
        self.draw = draw

    def order(self, targets: tuple[Target, ...], now: float) -> list[Target]:
        """The targets in the order in which they are asked."""
        if len(targets) == 1:
            return [targets[0]]
        return sorted(targets, key=lambda target: rank(target, self.standing(target), now, self.draw()))

    def standing(self, target: Target) -> Standing:
        """What is known of a target."""
        found = self._standings.get(target.backend)
        if found is None:
            self._standings[target.backend] = found = Standing()
        return found

    def is_full(self, target: Target) -> bool:
        """Whether the target may not take one more request."""
        return target.max_concurrency is not None and self.standing(target).in_flight >= target.max_concurrency

    def keep_only(self, targets: Iterable[Target]) -> None:
        """Forgets everything about others: after the configuration has changed."""
        kept = {target.backend for target in targets}
        self._standings = {name: standing for name, standing in self._standings.items() if name in kept}
