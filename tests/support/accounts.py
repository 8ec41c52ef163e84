"""An account for tests: a ledger over a store, with prices and budgets that the test names."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection

from chatport.policy.budgets import Budgets, Payer
from chatport.policy.ledger import Ledger, LedgerSettings, Rules
from chatport.policy.meter import Meter, Metered
from chatport.policy.owners import Owners
from chatport.policy.prices import Prices
from chatport.store import Store
from chatport.store.budgets import BudgetRow
from chatport.store.database import Work
from chatport.store.schema import metadata
from support.memory import memory_store

_numbers = itertools.count(1)


def ledger_over(store: Store, clock: Callable[[], float] = time.time, **settings: Any) -> Ledger:
    """A ledger whose rules are not loaded yet."""
    rules = Rules(budgets=Budgets(store.budgets), prices=Prices(store.prices), owners=Owners(store.owners))
    return Ledger(store.journal, rules, LedgerSettings(**settings), clock)


def meter(ledger: Ledger | None = None, **fields: Any) -> Meter:
    """One request's meter; without a ledger, over a store in memory of its own."""
    payer = Payer(fields.pop("key_id", "key_1"), fields.pop("owner", None), fields.pop("end_user", None))
    request = Metered(**{"id": f"req_{next(_numbers)}", "payer": payer, "streamed": False, **fields})
    return Meter(ledger or ledger_over(memory_store()[0]), request)


def budget(**fields: Any) -> BudgetRow:
    """Of the key `key_1`, in tokens, once."""
    default = {"kind": "key", "subject": "key_1", "unit": "token", "amount": 1000, "period": "once", "created_at": 1}
    return BudgetRow(**{"id": f"bud_{next(_numbers)}", **default, **fields})


async def written(store: Store, *works: Work[None]) -> None:
    """What a settlement does besides, done."""
    for work in works:
        await store._database.write(work)


async def rows(store: Store, table: str) -> list[Any]:
    """Everything in a table."""
    return (await tables(store, table))[table]


async def tables(store: Store, *names: str) -> dict[str, list[Any]]:
    """Everything in these tables, at one and the same moment."""

    def work(connection: Connection) -> dict[str, list[Any]]:
        return {name: [*connection.execute(metadata.tables[name].select())] for name in names}

    return await store._database.read(work)
