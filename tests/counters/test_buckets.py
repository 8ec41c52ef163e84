"""The arithmetic of buckets, by a simulated clock."""

from __future__ import annotations

from math import floor, inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatport.counters.buckets import UNUSED, Bucket, correct, settled, take

AMOUNTS = st.integers(1, 10_000)
PERIODS = st.sampled_from([60.0, 3600.0, 86_400.0])
STARTS = st.floats(0, 2e9)


def test_a_burst_is_there_at_once_and_comes_back_evenly() -> None:
    bucket = UNUSED
    for _ in range(3):
        bucket, wait = take(bucket, 1, 0.5, 3, 10.0)
        assert wait == 0
    assert take(bucket, 1, 0.5, 3, 10.0) == (bucket, 2.0)
    assert take(bucket, 1, 0.5, 3, 11.0) == (Bucket(2.5, 11.0), 1.0)
    assert take(bucket, 1, 0.5, 3, 12.0) == (Bucket(3.0, 12.0), 0.0)


def test_no_wait_is_long_enough_for_more_than_the_burst() -> None:
    assert take(UNUSED, 4, 0.5, 3, 10.0)[1] == inf


def test_nothing_comes_back_to_places_by_itself() -> None:
    bucket, _ = take(UNUSED, 1, 0.0, 1, 10.0)
    assert take(bucket, 1, 0.0, 1, 1e9)[1] == inf
    assert take(correct(bucket, -1, 0.0, 11.0), 1, 0.0, 1, 11.0)[1] == 0


def test_a_cost_of_nothing_is_taken_from_a_bucket_in_debt() -> None:
    debt = correct(UNUSED, 5, 0.5, 10.0)
    assert debt.used == 5
    assert take(debt, 0, 0.5, 3, 10.0) == (debt, 0.0)
    assert take(debt, 1, 0.5, 3, 10.0) == (debt, 6.0)


def test_a_clock_that_goes_back_gives_nothing_and_takes_nothing() -> None:
    assert settled(Bucket(2.0, 10.0), 1.0, 5.0) == Bucket(2.0, 10.0)


@given(AMOUNTS, PERIODS, STARTS, st.lists(st.floats(0, 1), max_size=80))
def test_under_saturation_the_burst_and_what_came_back_is_admitted_and_no_more(
    amount: int, period: float, start: float, pauses: list[float]
) -> None:
    """Saturation: whatever can be taken is taken, again and again, never later than the wait that was told."""
    rate = amount / period
    bucket, now, wait, admitted = UNUSED, start, 0.0, 0
    for pause in [0.0, *pauses]:
        now += pause * wait
        while True:
            bucket, wait = take(bucket, 1, rate, amount, now)
            if wait > 0:
                break
            admitted += 1
    exact = amount + rate * (now - start)
    if abs(exact - round(exact)) > 1e-2:
        assert admitted == floor(exact)
    else:  # whether the last one fits is a matter of the floats' last digits, and of the grace
        assert admitted in {round(exact) - 1, round(exact)}


@given(AMOUNTS, PERIODS, STARTS, st.data())
def test_who_waits_as_told_is_admitted_and_who_does_not_is_not(
    amount: int, period: float, start: float, data: st.DataObject
) -> None:
    rate = amount / period
    bucket, _ = take(UNUSED, amount, rate, amount, start)
    cost = data.draw(st.integers(1, amount))
    bucket, wait = take(bucket, cost, rate, amount, start)
    assert wait == pytest.approx(cost / rate)
    assert take(bucket, cost, rate, amount, start + wait)[1] == 0
    assert take(bucket, cost, rate, amount, start + wait * 0.9)[1] > 0


@given(AMOUNTS, PERIODS, st.lists(st.tuples(st.floats(0, 100), st.integers(-20_000, 20_000)), max_size=50))
def test_a_bucket_never_holds_more_than_its_burst(amount: int, period: float, steps: list[tuple[float, int]]) -> None:
    bucket, now = UNUSED, 0.0
    for pause, more in steps:
        now += pause
        bucket = correct(bucket, more, amount / period, now)
        assert bucket.used >= 0
