"""Budgets as rows, and how much of them is used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

from msgspec import Struct, json, structs
from sqlalchemy import ColumnElement, Connection, Row, and_, func, select, update

from chatport.store.audit import Change, note
from chatport.store.database import Database, T, Work
from chatport.store.revisions import count_change
from chatport.store.schema import balances, budgets

Kind: TypeAlias = Literal["key", "owner", "model", "user"]
Unit: TypeAlias = Literal["nano", "token"]
Period: TypeAlias = Literal["once", "day", "week", "month"]
Mode: TypeAlias = Literal["enforce", "report"]


_parents = budgets.alias("parents")

_every = select(
    *(
        func.coalesce(_parents.c[column.name], column).label(column.name)
        if column.name in {"amount", "mode", "ended_at"}
        else column
        for column in budgets.c
    )
).select_from(budgets.outerjoin(_parents, _parents.c.id == budgets.c.parent))
"""What is made after a budget for each end user is as that one is now."""


class BudgetRow(Struct, frozen=True, kw_only=True):
    """One budget. Times are Unix seconds."""

    id: str
    kind: Kind
    subject: str
    """The key's id (of `user` too), the owner's name, or the model's id."""
    end_user: str | None = None
    """Of kind `user`: whose; `*`: each one's under this key, for himself."""
    unit: Unit
    amount: int
    """Nano-dollars or tokens, for each period."""
    period: Period
    zone: str = "UTC"
    mode: Mode = "enforce"
    created_at: int
    ended_at: int | None = None
    parent: str | None = None
    """Of one end user's, made after a budget for each: that one's id."""


class BalanceRow(Struct, frozen=True, kw_only=True):
    """What became of one budget in one period, in its unit."""

    budget_id: str
    period: int
    """Unix seconds when it began, 0: once."""
    posted: int = 0
    held: int = 0
    granted: int = 0


class BudgetRows:
    """`changed` is told after each change that is made here."""

    def __init__(self, database: Database, changed: Callable[[], None]) -> None:
        self._database = database
        self._changed = changed

    async def all(self) -> list[BudgetRow]:
        """Every budget that somebody has set, ended ones too, oldest first."""
        return await self._where(budgets.c.parent.is_(None))

    async def each(self, parent: str) -> list[BudgetRow]:
        """Those of the end users that a budget for each has met."""
        return await self._where(budgets.c.parent == parent)

    async def one(self, budget_id: str) -> BudgetRow | None:
        """Any budget."""
        return next(iter(await self._where(budgets.c.id == budget_id)), None)

    async def _where(self, condition: ColumnElement[bool]) -> list[BudgetRow]:
        query = _every.where(condition).order_by(budgets.c.created_at, budgets.c.id)
        return await self._database.read(lambda c: [BudgetRow(**row._mapping) for row in c.execute(query)])

    async def add(self, row: BudgetRow, actor: str) -> None:
        """Keeps a new budget."""

        await self._change(lambda connection: put_budget(connection, row, actor))

    async def change(self, budget_id: str, actor: str, **columns: Any) -> BudgetRow | None:
        """Sets columns of a budget, and so of those that were made after it; returns it as it is then, None where there
        is none."""

        def work(connection: Connection) -> BudgetRow | None:
            before = _find(connection, budget_id)
            if before is None:
                return None
            connection.execute(update(budgets).where(budgets.c.id == budget_id).values(columns))
            after = structs.replace(before, **columns)
            note(connection, Change(actor, "budget.change", budget_id, json.encode(before), json.encode(after)))
            return after

        return await self._change(work)

    async def balances(self, places: list[tuple[str, int]]) -> list[BalanceRow]:
        """The balances of these budgets in these periods, in the same order; what has none has nothing in it."""

        def work(connection: Connection) -> list[BalanceRow]:
            return [_balance(connection, budget_id, period) for budget_id, period in places]

        return await self._database.read(work)

    async def _change(self, work: Work[T]) -> T:
        def counted(connection: Connection) -> T:
            result = work(connection)
            count_change(connection, "ledger")
            return result

        result = await self._database.write(counted)
        self._changed()
        return result


def put_budget(connection: Connection, row: BudgetRow, actor: str) -> None:
    """Keeps a new budget, in the caller's transaction."""
    connection.execute(budgets.insert().values(structs.asdict(row)))
    note(connection, Change(actor, "budget.create", row.id, None, json.encode(row)))


def _find(connection: Connection, budget_id: str) -> BudgetRow | None:
    row = connection.execute(select(budgets).where(budgets.c.id == budget_id)).one_or_none()
    return None if row is None else BudgetRow(**row._mapping)


def _balance(connection: Connection, budget_id: str, period: int) -> BalanceRow:
    query = select(balances).where(and_(balances.c.budget_id == budget_id, balances.c.period == period))
    row: Row[Any] | None = connection.execute(query).one_or_none()
    return BalanceRow(budget_id=budget_id, period=period) if row is None else BalanceRow(**row._mapping)
