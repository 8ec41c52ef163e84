"""Requests that are over, written as the ledger writes them."""

from __future__ import annotations

import itertools
from typing import Any

from chatport.store import Store
from chatport.store.account import AttemptRow, Claim, Held, Hold, HoldAccount, HoldRow, PostingRow, Settlement
from chatport.store.budgets import BudgetRow

_numbers = itertools.count(1)

HOUR_MS = 3_600_000

BUDGET = BudgetRow(id="bud_1", kind="key", subject="key_1", unit="nano", amount=1_000_000, period="once", created_at=1)


async def begin(
    store: Store,
    request_id: str | None = None,
    *,
    budget: str | None = None,
    claims: tuple[Claim, ...] = (),
    **account: Any,
) -> str:
    """A request under way, of `key_1` and the model `m`; holds 100 of a budget's nano-dollars, or what it claims."""
    request_id = request_id or f"req_{next(_numbers)}"
    fields: dict[str, Any] = {"key_id": "key_1", "model": "m", "target": "t", "held_nano": 100, **account}
    created_ms, worker_id = fields.pop("created_ms", HOUR_MS), fields.pop("worker_id", "worker_1")
    row = HoldRow(
        request_id=request_id,
        worker_id=worker_id,
        created_ms=created_ms,
        account=HoldAccount(**fields),
        prompt_tokens=10,
        completion_tokens=0,
    )
    if budget is not None:
        claims = (Claim(budget, 0, 90, 1, 1, "nano"),)
    await store.journal.hold(Hold(row=row, new=True, claims=claims, least=1, most=10, wanted=10))
    return request_id


async def post(
    store: Store,
    request_id: str | None = None,
    *,
    budget: str | None = None,
    attempts: tuple[AttemptRow, ...] = (),
    also: tuple[Any, ...] = (),
    **columns: Any,
) -> str:
    """A request from its beginning to its posting. Returns its id."""
    created_ms = columns.pop("created_ms", HOUR_MS)
    request_id = await begin(store, request_id, budget=budget, created_ms=created_ms)
    posting = posting_row(request_id, created_ms=created_ms, **columns)
    taken = () if budget is None else (Held(budget, 0, posting.charge_nano, "nano"),)
    assert await store.journal.settle(Settlement(posting=posting, taken=taken, attempts=attempts, also=also))
    return request_id


def posting_row(request_id: str, **columns: Any) -> PostingRow:
    """10 tokens in, 5 out, for 70 nano-dollars."""
    default = {
        "created_ms": HOUR_MS,
        "settled_ms": columns.get("created_ms", HOUR_MS) + 5,
        "key_id": "key_1",
        "model": "m",
        "target": "t",
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "cost_nano": 70,
        "charge_nano": 70,
        "held_nano": 100,
    }
    return PostingRow(id=request_id, **(default | columns))
