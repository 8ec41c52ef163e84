"""What was used, as operators and keys are told it."""

from __future__ import annotations

from datetime import UTC, datetime

from msgspec import Struct

from chatport.store import Store
from chatport.store.usage import By, Sum


class UsageEntry(Struct, frozen=True, kw_only=True):
    """What the requests of one group came to. Amounts are nano-dollars."""

    group: str | None
    """The key's id, the owner's or end user's name, the model's id, the day (UTC) as 2026-11-01; None: has none."""
    name: str | None = None
    """The key's."""
    requests: int
    failed: int
    """Of them, those without a complete answer."""
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    cost_nano: int
    """What the upstreams charge."""
    charge_nano: int
    """What the keys pay."""


async def usage_by(store: Store, by: By, since: int) -> list[UsageEntry]:
    """Groups, the most expensive first; days in order. Counts from the beginning of the hour that `since`, Unix
    seconds, is in. Raises StoreUnavailable."""
    sums = await store.usage.sums(by, since)
    names = {row.id: row.name for row in await store.keys.all()} if by == "key" else {}
    return [usage_entry(each, names.get(str(each.group))) for each in sums]


def usage_entry(sums: Sum, name: str | None = None) -> UsageEntry:
    """Sums as they are told."""
    group = sums.group
    return UsageEntry(
        group=f"{datetime.fromtimestamp(group, UTC):%Y-%m-%d}" if isinstance(group, int) else group or None,
        name=name,
        requests=sums.requests,
        failed=sums.failed,
        prompt_tokens=sums.prompt_tokens,
        cached_tokens=sums.cached_tokens,
        completion_tokens=sums.completion_tokens,
        reasoning_tokens=sums.reasoning_tokens,
        cost_nano=sums.cost_nano,
        charge_nano=sums.charge_nano,
    )
