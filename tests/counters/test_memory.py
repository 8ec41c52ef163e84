"""The counters of one process."""

from __future__ import annotations

from collections.abc import Coroutine
from math import inf
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatport.counters.contract import Counters, Draw, Refused, Rule, Taken
from chatport.counters.memory import MemoryCounters

T = TypeVar("T")
MINUTE = Rule(60, 60.0)
HOUR = Rule(100, 3600.0)
PLACES = Rule(2, None)


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """What a coroutine returns that must not suspend."""
    with pytest.raises(StopIteration) as done:
        work.send(None)
    result: T = done.value.value
    return result


def used(counters: Counters, *draws: Draw, now: float) -> list[float]:
    return [bucket.used for bucket in at_once(counters.peek(draws, now))]


def test_all_or_nothing() -> None:
    counters = MemoryCounters()
    minute, hour, place = Draw("m", MINUTE, 60), Draw("h", HOUR, 60), Draw("p", PLACES, 1)
    assert at_once(counters.take([minute, hour, place], 0.0)) == Taken(
        at_once(counters.peek([minute, hour, place], 0.0))
    )
    refusal = at_once(counters.take([minute, hour, place], 30.0))
    assert isinstance(refusal, Refused)
    assert refusal.draw == 1
    assert refusal.wait == pytest.approx((60 - 30 / 36 + 60 - 100) * 36)
    assert used(counters, minute, hour, place, now=30.0) == pytest.approx([30, 60 - 30 / 36, 1])


def test_of_several_refusals_the_longest_wait_is_told_and_places_last() -> None:
    counters = MemoryCounters()
    draws = [Draw("p", PLACES, 2), Draw("m", MINUTE, 60), Draw("h", HOUR, 100)]
    at_once(counters.take(draws, 0.0))
    refusal = at_once(counters.take(draws, 0.0))
    assert isinstance(refusal, Refused)
    assert (refusal.draw, refusal.wait) == (2, 3600.0)
    assert at_once(counters.take(draws[:1], 0.0)) == Refused(at_once(counters.peek(draws[:1], 0.0)), 0, inf)
    too_large = [Draw("m", MINUTE, 61), Draw("h", HOUR, 100)]
    refusal = at_once(counters.take(too_large, 0.0))
    assert isinstance(refusal, Refused)
    assert (refusal.draw, refusal.wait) == (0, inf)


def test_what_is_not_enforced_is_skipped_and_refuses_nothing() -> None:
    counters = MemoryCounters()
    shadow, real = Draw("s", Rule(1, 60.0), 2, enforced=False), Draw("m", MINUTE, 2)
    taken = at_once(counters.take([shadow, real], 0.0))
    assert isinstance(taken, Taken)
    assert taken.skipped == (0,)
    assert [bucket.used for bucket in taken.buckets] == [0, 2]


def test_corrections_may_lead_into_debt_but_never_above_the_burst() -> None:
    counters = MemoryCounters()
    draw = Draw("m", MINUTE, 10)
    at_once(counters.take([draw], 0.0))
    assert at_once(counters.correct([Draw("m", MINUTE, 100)], 0.0))[0].used == 110
    assert at_once(counters.correct([Draw("m", MINUTE, -500)], 0.0))[0].used == 0


def test_a_changed_rule_holds_for_what_is_used_already() -> None:
    counters = MemoryCounters()
    at_once(counters.take([Draw("p", PLACES, 2)], 0.0))
    wider = Draw("p", Rule(3, None), 1)
    assert isinstance(at_once(counters.take([wider], 0.0)), Taken)
    assert isinstance(at_once(counters.take([wider], 0.0)), Refused)


def test_what_is_unused_again_is_forgotten() -> None:
    counters = MemoryCounters(few=10)
    for number in range(10_000):
        at_once(counters.take([Draw(f"m{number}", MINUTE, 1)], number))
    assert len(counters) <= 11
    few = MemoryCounters()
    at_once(few.take([Draw("p", PLACES, 1)], 0.0))
    assert len(few) == 1
    at_once(few.correct([Draw("p", PLACES, -1)], 0.0))
    assert len(few) == 0


def test_there_is_a_bound_and_places_in_use_are_never_forgotten() -> None:
    counters = MemoryCounters(most=50)
    at_once(counters.take([Draw("p", PLACES, 2), Draw("full", HOUR, 100)], 0.0))
    for number in range(1000):
        at_once(counters.take([Draw(f"h{number}", HOUR, 1)], 0.0))
        assert len(counters) <= 51
    assert used(counters, Draw("p", PLACES, 0), Draw("full", HOUR, 0), now=0.0) == [2, 100]


@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(-3, 5), st.floats(0, 40)), min_size=1, max_size=60
    ),
    st.integers(1, 4),
)
def test_forgetting_changes_nothing(steps: list[tuple[str, int, float]], others: int) -> None:
    """A home that looks at other buckets all the time says the same as one that has no reason to."""
    busy, quiet = MemoryCounters(few=0), MemoryCounters()
    now = 0.0
    for number, (name, cost, pause) in enumerate(steps):
        now += pause
        for other in range(others):
            at_once(busy.take([Draw(f"other{number}-{other}", HOUR, 1)], now))
        draw = [Draw(name, Rule(7, 60.0), cost)]
        if cost < 0:
            assert at_once(busy.correct(draw, now))[0].used == at_once(quiet.correct(draw, now))[0].used
        else:
            ours, theirs = at_once(busy.take(draw, now)), at_once(quiet.take(draw, now))
            assert type(ours) is type(theirs)
            assert [b.used for b in ours.buckets] == [b.used for b in theirs.buckets]
