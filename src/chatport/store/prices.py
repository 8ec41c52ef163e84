"""Prices as rows. A row never changes but for its end, so that a posting's price stays what it was."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final
from uuid import uuid4

from msgspec import Raw, Struct, json, structs
from sqlalchemy import Connection, Select, select, update

from chatport.store.audit import Change, note
from chatport.store.database import Database
from chatport.store.revisions import count_change
from chatport.store.schema import prices, revisions

CONFIGURATION: Final = "configuration"
COMMAND: Final = "command"
EMBEDDED: Final = "embedded"
LISTED: Final = "genai-prices"
"""Where prices come from. A list's name is followed by its version."""


def family(source: str) -> str:
    """A source without the version of its list."""
    return source.partition(" ")[0]


class PriceRow(Struct, frozen=True, kw_only=True):
    """One version of a price. Times are Unix seconds."""

    id: str
    model: str
    """The model's id, `NAME/*` with its star; of a list: PROVIDER/MODEL, as the list calls them."""
    source: str
    rates: Raw
    """JSON: pico-dollars by kind of token."""
    effective_at: int
    """0: always."""
    created_at: int
    ended_at: int | None = None

    @property
    def content(self) -> tuple[str, str, int, bytes]:
        """What makes it a price of its own."""
        return self.model, family(self.source), self.effective_at, bytes(self.rates)


class Replaced(Struct, frozen=True, kw_only=True):
    """What a replacement came to."""

    added: tuple[PriceRow, ...]
    ended: tuple[PriceRow, ...]
    kept: tuple[PriceRow, ...]


def price_id() -> str:
    """A new one."""
    return f"price_{uuid4().hex[:16]}"


class PriceRows:
    """`changed` is told after each change that is made here. `actor`: who does it, for the audit log."""

    def __init__(self, database: Database, changed: Callable[[], None]) -> None:
        self._database = database
        self._changed = changed

    async def open(self) -> list[PriceRow]:
        """Every price that has not ended, oldest first."""
        return await self._database.read(_open)

    async def all(self) -> list[PriceRow]:
        """Ended ones too, oldest first."""
        return await self._database.read(_every)

    async def replace(
        self, wanted: Iterable[PriceRow], concerned: Callable[[PriceRow], bool], now: int, actor: str
    ) -> Replaced:
        """Has the prices that are `concerned` be those wanted: adds what is not there, ends what is not wanted, and
        leaves alone what is the same. Nothing to do is no change."""
        new = {row.content: row for row in wanted}

        def work(connection: Connection) -> Replaced:
            _one_at_a_time(connection)
            before = [row for row in _open(connection) if concerned(row)]
            kept = {row.content: row for row in before if row.content in new}
            ended = tuple(row for row in before if kept.get(row.content) is not row)
            added = tuple(row for row in new.values() if row.content not in kept)
            _write(connection, added, ended, now, actor)
            return Replaced(added=added, ended=ended, kept=tuple(kept.values()))

        return await self._write(work)

    async def set(self, row: PriceRow, actor: str) -> Replaced:
        """Adds a price, in the place of all that its source said of its model from then on."""

        def work(connection: Connection) -> Replaced:
            _one_at_a_time(connection)
            place = (row.model, row.source)
            later = (old for old in _open(connection) if old.effective_at >= row.effective_at)
            ended = tuple(old for old in later if (old.model, old.source) == place)
            _write(connection, (row,), ended, row.created_at, actor)
            return Replaced(added=(row,), ended=ended, kept=())

        return await self._write(work)

    async def _write(self, work: Callable[[Connection], Replaced]) -> Replaced:
        result = await self._database.write(work)
        if result.added or result.ended:
            self._changed()
        return result


def _open(connection: Connection) -> list[PriceRow]:
    return _rows(connection, select(prices).where(prices.c.ended_at.is_(None)))


def _every(connection: Connection) -> list[PriceRow]:
    return _rows(connection, select(prices))


def _rows(connection: Connection, query: Select[Any]) -> list[PriceRow]:
    found = connection.execute(query.order_by(prices.c.created_at, prices.c.effective_at, prices.c.id))
    rows = (dict(row._mapping) for row in found)
    return [PriceRow(**(row | {"rates": Raw(row["rates"])})) for row in rows]


def _one_at_a_time(connection: Connection) -> None:
    """Two servers that start at once must not add the same price twice: PostgreSQL would let both look first."""
    connection.execute(select(revisions.c.revision).where(revisions.c.topic == "ledger").with_for_update())


def _write(
    connection: Connection, added: tuple[PriceRow, ...], ended: tuple[PriceRow, ...], now: int, actor: str
) -> None:
    if not added and not ended:
        return
    for start in range(0, len(ended), 500):  # SQLite takes 32,766 parameters, older ones 999
        ids = [row.id for row in ended[start : start + 500]]
        connection.execute(update(prices).where(prices.c.id.in_(ids)).values(ended_at=now))
    if added:
        rows = [structs.asdict(row) | {"rates": bytes(row.rates)} for row in added]
        connection.execute(prices.insert(), rows)
    for change in _changes(added, ended, actor):
        note(connection, change)
    count_change(connection, "ledger")


def _changes(added: tuple[PriceRow, ...], ended: tuple[PriceRow, ...], actor: str) -> list[Change]:
    """For the audit log: one for each model, but a list that is imported is one as a whole."""
    sources = {row.source for row in added if family(row.source) == LISTED}
    if sources:
        counts = {"added": len(added), "ended": len(ended)}
        return [Change(actor, "price.import", ", ".join(sorted(sources)), None, json.encode(counts))]
    before, after = ({row.model: json.encode(row) for row in rows} for rows in (ended, added))
    return [
        Change(actor, "price.set" if model in after else "price.end", model, before.get(model), after.get(model))
        for model in sorted(before.keys() | after.keys())
    ]
