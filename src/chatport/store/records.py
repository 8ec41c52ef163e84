"""The records of requests: one with all that belongs to it, and all of them one after the other."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

from msgspec import Struct, json
from sqlalchemy import Connection, Row, select

from chatport.store.account import AttemptRow, HoldAccount, HoldRow, PostingRow
from chatport.store.budgets import BudgetRow
from chatport.store.contents import ContentRow
from chatport.store.database import Database
from chatport.store.schema import attempts, budgets, contents, entries, holds, keys, postings, prices

PAGE: Final = 1000
"""Postings that are read at a time."""

POSTING: Final = [postings.c[name] for name in PostingRow.__struct_fields__]


class Taken(Struct, frozen=True, kw_only=True):
    """What a request took from one budget, in its unit."""

    budget: BudgetRow
    period: int
    """Unix seconds when it began, 0: once."""
    amount: int


class PriceOf(Struct, frozen=True, kw_only=True):
    """A price as it is kept. `rates`: JSON, pico-dollars by kind of token; `effective_at`: Unix seconds."""

    id: str
    source: str
    rates: bytes
    effective_at: int


class Record(Struct, frozen=True, kw_only=True):
    """All that is known of one request: its posting, or its hold while it runs."""

    posting: PostingRow | None
    hold: HoldRow | None
    attempts: list[AttemptRow]
    taken: list[Taken]
    price: PriceOf | None
    key_name: str | None
    content: ContentRow | None


class RecordRows:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def one(self, request_id: str) -> Record | None:
        """Everything of one request; None where there is none of that id, or its record was removed."""
        return await self._database.read(lambda connection: _record(connection, request_id))

    async def every(self, since_ms: int = 0) -> AsyncIterator[PostingRow | HoldRow]:
        """Every request that began at `since_ms`, Unix milliseconds, or later, as things stand when the first is asked
        for: the postings in their order, then the holds of those that ran. Read a page at a time."""
        running, last = await self._database.read(lambda connection: _standing(connection, since_ms))
        held = {row.request_id for row in running}
        after = 0
        while after < last:
            page, after = await self._database.read(_page(after, last, since_ms))
            for row in page:
                if row.id not in held:  # it was posted meanwhile, and had its number before it was committed
                    yield row
        for row in running:
            yield row


def _record(connection: Connection, request_id: str) -> Record | None:
    posting = connection.execute(select(*POSTING, postings.c.sequence).where(postings.c.id == request_id)).one_or_none()
    held = connection.execute(select(holds).where(holds.c.request_id == request_id)).one_or_none()
    columns = {} if posting is None else dict(posting._mapping)
    sequence = columns.pop("sequence", None)
    row = PostingRow(**columns) if columns else None
    hold = None if held is None else _hold(held)
    whose = row if row is not None else hold.account if hold is not None else None
    if whose is None:
        return None
    return Record(
        posting=row,
        hold=hold,
        attempts=_attempts(connection, request_id),
        taken=_taken(connection, sequence),
        price=_price(connection, whose.price_id),
        key_name=connection.scalar(select(keys.c.name).where(keys.c.id == whose.key_id)),
        content=_content(connection, request_id),
    )


def _attempts(connection: Connection, request_id: str) -> list[AttemptRow]:
    found = connection.execute(select(attempts).where(attempts.c.request_id == request_id).order_by(attempts.c.number))
    return [AttemptRow(**row._mapping) for row in found]


def _taken(connection: Connection, sequence: int | None) -> list[Taken]:
    query = select(budgets, entries.c.period.label("began"), entries.c.amount.label("taken"))
    joined = query.join(budgets, budgets.c.id == entries.c.budget_id).where(entries.c.sequence == sequence)
    found: list[Taken] = []
    for row in connection.execute(joined.order_by(budgets.c.id)):
        columns = dict(row._mapping)
        began, amount = columns.pop("began"), columns.pop("taken")
        found.append(Taken(budget=BudgetRow(**columns), period=began, amount=amount))
    return found


def _price(connection: Connection, price_id: str | None) -> PriceOf | None:
    columns = [prices.c[name] for name in PriceOf.__struct_fields__]
    row = connection.execute(select(*columns).where(prices.c.id == price_id)).one_or_none()
    return None if row is None else PriceOf(**row._mapping)


def _content(connection: Connection, request_id: str) -> ContentRow | None:
    row = connection.execute(select(contents).where(contents.c.request_id == request_id)).one_or_none()
    return None if row is None else ContentRow(**row._mapping)


def _hold(row: Row[Any]) -> HoldRow:
    columns = dict(row._mapping)
    return HoldRow(**columns | {"account": json.decode(columns["account"], type=HoldAccount)})


def _standing(connection: Connection, since_ms: int) -> tuple[list[HoldRow], int]:
    """The holds, and the number of the newest posting, at one moment."""
    found = connection.execute(select(holds).where(holds.c.created_ms >= since_ms).order_by(holds.c.created_ms))
    last = connection.scalar(select(postings.c.sequence).order_by(postings.c.sequence.desc()).limit(1))
    return [_hold(row) for row in found], last or 0


def _page(after: int, last: int, since_ms: int) -> Any:
    """Work that reads the next postings: those of requests, and the number to go on from."""
    query = select(postings.c.sequence, *POSTING).where(postings.c.sequence > after, postings.c.sequence <= last)
    query = query.order_by(postings.c.sequence).limit(PAGE)

    def work(connection: Connection) -> tuple[list[PostingRow], int]:
        found = connection.execute(query).all()
        rows = [PostingRow(*values) for _, *values in found]
        wanted = [row for row in rows if row.kind == "request" and row.created_ms >= since_ms]
        return wanted, found[-1].sequence if len(found) == PAGE else last

    return work
