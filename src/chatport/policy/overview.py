"""What a key may see of itself, and an operator of any request."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

from msgspec import Struct

from chatport.policy.budgets import Budgets, Payer
from chatport.policy.keys import Caller
from chatport.policy.limits import Limits, Standing, Subjects
from chatport.policy.standing import BudgetStanding, standings
from chatport.policy.story import Story, told
from chatport.policy.usage import UsageEntry, usage_by, usage_entry
from chatport.store import Store
from chatport.store.audit import AuditRow
from chatport.store.usage import By, Sum


class KeyOverview(Struct, frozen=True, kw_only=True):
    """A key, by itself. Times are Unix seconds, amounts nano-dollars or tokens."""

    object: Literal["key"] = "key"
    id: str
    name: str
    owner: str | None
    models: list[str] | None
    """None: every one."""
    expires_at: int | None
    limits: list[Standing]
    """Those of the key and its owner; those of a model or an end user depend on the request."""
    budgets: list[BudgetStanding]
    today: UsageEntry | None
    """What it used since midnight UTC; None: nothing."""
    month: UsageEntry | None


class Overview:
    """Calls may raise StoreUnavailable."""

    def __init__(self, store: Store, budgets: Budgets, limits: Limits) -> None:
        self._store = store
        self._budgets = budgets
        self._limits = limits

    async def key(self, caller: Caller, now: float, clock: float) -> KeyOverview:
        """What a key is told of itself. `now`: Unix seconds; `clock`: seconds of the limits' clock."""
        day = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        rows = {row.id: row for row in await self._store.keys.all()}
        row = rows.get(caller.key_id)
        limits = await self._limits.standing(Subjects(caller.key_id, caller.owner, "", None), clock)
        budgets = self._budgets.of(Payer(caller.key_id, caller.owner), "")
        return KeyOverview(
            id=caller.key_id,
            name=caller.name,
            owner=caller.owner,
            models=None if caller.models is None else sorted(caller.models),
            expires_at=None if row is None else row.expires_at,
            limits=limits,
            budgets=await standings(self._store.budgets, budgets, now),
            today=await self._used(caller, int(day.timestamp())),
            month=await self._used(caller, int(day.replace(day=1).timestamp())),
        )

    async def request(self, request_id: str) -> Story:
        """The whole story of one request. Raises NotFound."""
        return told(await self._store.records.one(request_id), request_id)

    async def usage(self, by: By, since: int) -> list[UsageEntry]:
        """What was used by whom since then, Unix seconds."""
        return await usage_by(self._store, by, since)

    async def audit(self, limit: int, before: int | None) -> list[AuditRow]:
        """Who changed what, the newest first. `before`: the sequence number that another page ended with."""
        return await self._store.audit.latest(limit, before)

    async def _used(self, caller: Caller, since: int) -> UsageEntry | None:
        sums: list[Sum] = await self._store.usage.sums("key", since, caller.key_id)
        return usage_entry(sums[0], caller.name) if sums else None
