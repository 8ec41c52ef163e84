"""What a client is told when a budget has no room for its request (contract.md §12: what, and until when)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from chatport.policy.budgets import Budgets
from chatport.store.account import NoRoom
from chatport.store.budgets import BudgetRow
from chatport.wire.errors import QuotaExhausted, RateLimited

NANO: Final = 10**9

WHOSE: Final = {
    "key": "this API key",
    "owner": "the owner of this API key",
    "model": "this model",
    "user": "this end user",
}

RETRY_AFTER: Final = 1.0
"""Seconds: others' requests end, and release what they hold, at any moment."""


def exhausted(budgets: Budgets, refusal: NoRoom, now: float) -> QuotaExhausted:
    """What is posted leaves too little for the request."""
    budget = budgets.by_id(refusal.budget_id)
    if budget is None:
        return QuotaExhausted("Quota exhausted: the budget of this API key leaves too little for this request.")
    used = f"{shown(refusal.posted, budget)} of {shown(refusal.limit, budget)} used"
    return QuotaExhausted(
        f"Quota exhausted: the {_name(budget)} of {WHOSE[budget.kind]} leaves too little for this request "
        f"({used}; this request needs up to {shown(refusal.needed, budget)}). {_until(budgets, budget, now)}"
    )


def waited_in_vain(budgets: Budgets, refusal: NoRoom | None, waited: float) -> RateLimited:
    """There would be room, but other requests hold it."""
    budget = None if refusal is None else budgets.by_id(refusal.budget_id)
    name = "a budget" if budget is None else f"the {_name(budget)} of {WHOSE[budget.kind]}"
    return RateLimited(
        f"Requests that are running hold what is left of {name}{f'; waited {waited:g} s for it' if waited else ''}. "
        "Try again.",
        retry_after=RETRY_AFTER,
    )


def shown(amount: int, budget: BudgetRow) -> str:
    """An amount in the budget's unit, for people."""
    return f"{amount} tokens" if budget.unit == "token" else dollars(amount)


def dollars(nano: int) -> str:
    """Nano-dollars as USD: all digits that are not 0, two at least."""
    sign, nano = ("-", -nano) if nano < 0 else ("", nano)
    fraction = f"{nano % NANO:09}".rstrip("0").ljust(2, "0")
    return f"{sign}{nano // NANO}.{fraction} USD"


def _name(budget: BudgetRow) -> str:
    return "budget" if budget.period == "once" else f"budget for this {budget.period}"


def _until(budgets: Budgets, budget: BudgetRow, now: float) -> str:
    _, ends = budgets.calendar.around(budget, now)
    if ends is None:
        return "It is not renewed by itself; ask the operator for more."
    return f"It is renewed at {datetime.fromtimestamp(ends, UTC):%Y-%m-%d %H:%M} UTC."
