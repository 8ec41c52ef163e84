"""The arithmetic of token buckets, told by what is used of them instead of what is left.

A bucket holds `burst` and what is used of it comes back at `rate`, continuously. Counting what is used has two merits:
a rule that is changed holds at once for the buckets that are there, and an empty record is an unused bucket, so that
such can be forgotten. A bucket of rate 0 is a count of places: what was taken is given back by who took it.
"""

from __future__ import annotations

from math import inf

from msgspec import Struct

GRACE = 1e-6
"""Seconds a request may come early: a clock's steps, and sums of floats, must not make who waited as told wait again.
It is not lost: what is taken early counts, and the next one waits for it."""

CRUMB = 1e-9
"""What sums of floats may be off by, as a share of the burst."""


class Bucket(Struct, frozen=True):
    """`used` of the burst, at the time `at`: seconds of the clock that all calls share."""

    used: float
    at: float


UNUSED = Bucket(0.0, 0.0)


def settled(bucket: Bucket, rate: float, now: float) -> Bucket:
    """The bucket at `now`, with what has come back since. A clock that went backwards changes nothing."""
    if now <= bucket.at:
        return bucket
    return Bucket(max(0.0, bucket.used - (now - bucket.at) * rate), now)


def take(bucket: Bucket, cost: float, rate: float, burst: float, now: float) -> tuple[Bucket, float]:
    """The bucket after the cost is taken, and the wait in seconds: 0.0 = taken, otherwise nothing was.

    rate: what comes back in a second. The wait is infinite where nothing comes back, or the cost is above the burst. A
    cost of 0, or one below that gives something back, is always taken, from a bucket in debt too.
    """
    bucket = settled(bucket, rate, now)
    missing = bucket.used + cost - burst
    if cost <= 0 or missing <= rate * GRACE + burst * CRUMB:
        return Bucket(max(0.0, bucket.used + cost), bucket.at), 0.0
    return bucket, missing / rate if rate > 0 and cost <= burst else inf


def correct(bucket: Bucket, more: float, rate: float, now: float) -> Bucket:
    """The bucket after so much more was used than was taken, perhaps more than there was; below 0 gives back."""
    bucket = settled(bucket, rate, now)
    return Bucket(max(0.0, bucket.used + more), bucket.at)
