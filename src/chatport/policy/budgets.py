"""Which budgets a request falls under, and when their periods begin."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from msgspec import Struct, structs

from chatport.policy.limits import EACH, short
from chatport.store.budgets import BudgetRow, BudgetRows, Kind, Period

DIGEST: Final = 24
"""Hexadecimal digits in the id of one end user's budget."""

ONCE: Final = 0
"""The period of a budget that has only one."""


class Payer(Struct, frozen=True):
    """Who a request is for."""

    key_id: str
    owner: str | None = None
    end_user: str | None = None


def period_of(period: Period, zone: str, now: float) -> tuple[int, int | None]:
    """When the period that `now` is in began and when the next one begins, Unix seconds; midnights of the zone."""
    if period == "once":
        return ONCE, None
    here = ZoneInfo(zone)
    day = datetime.fromtimestamp(now, here).replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    match period:
        case "day":
            begin, end = day, day + timedelta(days=1)
        case "week":
            begin = day - timedelta(days=day.weekday())
            end = begin + timedelta(days=7)
        case "month":
            begin = day.replace(day=1)
            end = (begin + timedelta(days=32)).replace(day=1)
    return int(begin.timestamp()), int(end.timestamp())


class Calendar:
    """`period_of`, remembered: the answer is the same until the period ends."""

    def __init__(self) -> None:
        self._known: dict[tuple[Period, str], tuple[int, int | None]] = {}

    def began(self, budget: BudgetRow, now: float) -> int:
        """When the budget's period that `now` is in began."""
        return self.around(budget, now)[0]

    def around(self, budget: BudgetRow, now: float) -> tuple[int, int | None]:
        """When the budget's period that `now` is in began, and when the next one begins."""
        place = (budget.period, budget.zone)
        known = self._known.get(place)
        if known is None or not known[0] <= now < (known[1] or now + 1):
            known = self._known[place] = period_of(budget.period, budget.zone, now)
        return known


class Budgets:
    """Every budget in force. What reads rows may raise StoreUnavailable; `of` never does."""

    def __init__(self, rows: BudgetRows) -> None:
        self.rows = rows
        self.calendar = Calendar()
        self.empty = True
        """Nobody has any."""
        self._by_subject: dict[tuple[Kind, str], list[BudgetRow]] = {}
        self._by_id: dict[str, BudgetRow] = {}

    async def load(self) -> None:
        """Takes every budget into memory."""
        self.take(await self.rows.all())

    def take(self, rows: Iterable[BudgetRow]) -> None:
        """These, and no others, are in force from now on."""
        found: defaultdict[tuple[Kind, str], list[BudgetRow]] = defaultdict(list)
        for row in rows:
            if row.ended_at is None:
                found[row.kind, row.subject].append(row)
        self.empty = not found
        self._by_subject = dict(found)
        self._by_id = {row.id: row for budgets in found.values() for row in budgets}

    def by_id(self, budget_id: str) -> BudgetRow | None:
        """A budget in force; of one end user's, the one that it was made after."""
        return self._by_id.get(budget_id.partition(".")[0])

    def of(self, payer: Payer, model: str) -> list[BudgetRow]:
        """Those that a request falls under."""
        if self.empty:
            return []
        found = [
            *self._by_subject.get(("key", payer.key_id), ()),
            *self._by_subject.get(("model", model), ()),
        ]
        if payer.owner is not None:
            found += self._by_subject.get(("owner", payer.owner), ())
        if payer.end_user is not None:
            found += _of_user(self._by_subject.get(("user", payer.key_id), ()), payer.end_user)
        return found


def _of_user(budgets: Sequence[BudgetRow], user: str) -> list[BudgetRow]:
    """His own; where he has none, one like each of those for everybody."""
    own = [budget for budget in budgets if budget.end_user != EACH and short(budget.end_user) == user]
    return own or [one_of(budget, user) for budget in budgets if budget.end_user == EACH]


def one_of(budget: BudgetRow, user: str) -> BudgetRow:
    """One end user's part of a budget for each."""
    digest = hashlib.sha256(user.encode(errors="surrogatepass")).hexdigest()[:DIGEST]
    return structs.replace(budget, id=f"{budget.id}.{digest}", end_user=user, parent=budget.id)
