"""Counters of one process. Nothing here waits, so that each call is one step for all tasks of the loop.

Unused buckets are forgotten. There is no sweep that would hold the loop up: each new bucket pays for a look at a few
others, in turn. Names may come from clients (each end user has a bucket), so the number of buckets has a bound: beyond
it, of a few the one that would be unused soonest is forgotten early. Places in use are never forgotten: they are as
many as the requests under way.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import islice
from math import inf

from msgspec import Struct

from chatport.counters import buckets
from chatport.counters.buckets import UNUSED, Bucket
from chatport.counters.contract import Draw, Refused, Taken

MOST_BUCKETS = 50_000
"""Buckets remembered: with names of 100 characters they take some 20 MB."""

FEW = 500
"""Buckets that are not worth a look."""

LOOKS = 4
"""Buckets looked at for each new one: more than one, so that forgetting is faster than remembering."""


class _Kept(Struct):
    bucket: Bucket
    rate: float

    def unused_in(self, now: float) -> float:
        """Seconds until the bucket is as good as none; infinite for places in use."""
        used = buckets.settled(self.bucket, self.rate, now).used
        if used == 0:
            return 0.0
        return used / self.rate if self.rate > 0 else inf


class MemoryCounters:
    """`most`: buckets remembered; `few`: up to so many none is looked at."""

    def __init__(self, most: int = MOST_BUCKETS, few: int = FEW) -> None:
        # Not a dict: to take the first entries off one again and again costs as much as it has ever had.
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._most = most
        self._few = min(few, most)

    def __len__(self) -> int:
        return len(self._kept)

    async def take(self, draws: Sequence[Draw], now: float) -> Taken | Refused:
        after: list[Bucket] = []
        skipped: list[int] = []
        refusals: list[tuple[bool, float, int]] = []
        for index, draw in enumerate(draws):
            rule = draw.rule
            kept = self._kept.get(draw.name)
            before = UNUSED if kept is None else kept.bucket
            bucket, wait = buckets.take(before, draw.cost, rule.rate, rule.amount, now)
            after.append(bucket)
            if wait > 0 and draw.enforced:
                refusals.append((rule.period is not None, wait, index))
            elif wait > 0:
                skipped.append(index)
        if refusals:
            _, wait, refused = max(refusals)
            return Refused(await self.peek(draws, now), refused, wait)
        for draw, bucket in zip(draws, after, strict=True):
            self._keep(draw, bucket, now)
        return Taken(tuple(after), tuple(skipped))

    async def correct(self, draws: Sequence[Draw], now: float) -> tuple[Bucket, ...]:
        after = tuple(buckets.correct(self._bucket(draw.name), draw.cost, draw.rule.rate, now) for draw in draws)
        for draw, bucket in zip(draws, after, strict=True):
            self._keep(draw, bucket, now)
        return after

    async def peek(self, draws: Sequence[Draw], now: float) -> tuple[Bucket, ...]:
        return tuple(buckets.settled(self._bucket(draw.name), draw.rule.rate, now) for draw in draws)

    def _bucket(self, name: str) -> Bucket:
        kept = self._kept.get(name)
        return UNUSED if kept is None else kept.bucket

    def _keep(self, draw: Draw, bucket: Bucket, now: float) -> None:
        if bucket.used == 0:
            self._kept.pop(draw.name, None)
            return
        kept = self._kept.get(draw.name)
        if kept is None:
            self._kept[draw.name] = _Kept(bucket, draw.rule.rate)
            self._make_room(now)
        else:
            kept.bucket, kept.rate = bucket, draw.rule.rate

    def _make_room(self, now: float) -> None:
        """Looks at those that were not looked at for longest: forgets the unused, the others go to the end."""
        if len(self._kept) <= self._few:
            return
        soonest: tuple[float, str] = (inf, "")
        for name in list(islice(self._kept, LOOKS)):
            wait = self._kept[name].unused_in(now)
            if wait == 0:
                del self._kept[name]
                continue
            self._kept.move_to_end(name)
            soonest = min(soonest, (wait, name))
        if len(self._kept) > self._most and soonest[1]:
            del self._kept[soonest[1]]
