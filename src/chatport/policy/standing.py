"""How budgets stand: what of them is used, held and left, and when they begin anew."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from chatport.policy.budgets import period_of
from chatport.store.budgets import BalanceRow, BudgetRow, BudgetRows, Kind, Mode, Period, Unit


class BudgetStanding(Struct, frozen=True, kw_only=True):
    """One budget in the period that is running. Amounts in its unit, nano-dollars or tokens; times are Unix seconds."""

    id: str
    scope: str
    """`key:ID`, `owner:NAME`, `model:ID` or `user:KEY_ID/USER`."""
    kind: Kind
    subject: str
    end_user: str | None
    unit: Unit
    amount: int
    """For each period."""
    period: Period
    zone: str
    mode: Mode
    created_at: int
    ended_at: int | None
    began_at: int | None
    """When the period began; None: it has only one."""
    renews_at: int | None
    """When the next one begins."""
    granted: int
    """On top of the amount, in this period."""
    limit: int
    posted: int
    held: int
    remaining: int
    """What is neither posted nor held; not below 0."""


def standing(budget: BudgetRow, balance: BalanceRow, now: float) -> BudgetStanding:
    """A budget with the balance of its period. `now`: Unix seconds."""
    began, renews = period_of(budget.period, budget.zone, now)
    limit = budget.amount + balance.granted
    return BudgetStanding(
        id=budget.id,
        scope=scope_of(budget),
        kind=budget.kind,
        subject=budget.subject,
        end_user=budget.end_user,
        unit=budget.unit,
        amount=budget.amount,
        period=budget.period,
        zone=budget.zone,
        mode=budget.mode,
        created_at=budget.created_at,
        ended_at=budget.ended_at,
        began_at=began or None,
        renews_at=renews,
        granted=balance.granted,
        limit=limit,
        posted=balance.posted,
        held=balance.held,
        remaining=max(0, limit - balance.posted - balance.held),
    )


async def standings(rows: BudgetRows, budgets: Sequence[BudgetRow], now: float) -> list[BudgetStanding]:
    """Each of them, in this order. Raises StoreUnavailable."""
    places = [(budget.id, period_of(budget.period, budget.zone, now)[0]) for budget in budgets]
    balances = await rows.balances(places)
    return [standing(budget, balance, now) for budget, balance in zip(budgets, balances, strict=True)]


def scope_of(budget: BudgetRow) -> str:
    """Whose it is, as commands write it."""
    subject = budget.subject if budget.end_user is None else f"{budget.subject}/{budget.end_user}"
    return f"{budget.kind}:{subject}"
