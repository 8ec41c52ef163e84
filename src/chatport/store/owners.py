"""Owners as rows: who keys are given to, and by how much what they pay differs from what it costs."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct, json, structs
from sqlalchemy import Connection, select

from chatport.store.audit import Change, note
from chatport.store.database import Database
from chatport.store.revisions import count_change
from chatport.store.schema import insert, owners


class OwnerRow(Struct, frozen=True, kw_only=True):
    name: str
    factor_ppm: int
    """Charge = cost x factor; millionths."""
    created_at: int
    """Unix seconds."""


class OwnerRows:
    """`changed` is told after each change that is made here."""

    def __init__(self, database: Database, changed: Callable[[], None]) -> None:
        self._database = database
        self._changed = changed

    async def all(self) -> list[OwnerRow]:
        """Every owner that something was set for, by name."""

        def work(connection: Connection) -> list[OwnerRow]:
            return [OwnerRow(**row._mapping) for row in connection.execute(select(owners).order_by(owners.c.name))]

        return await self._database.read(work)

    async def put(self, row: OwnerRow, actor: str) -> None:
        """Keeps an owner, in the place of what was set before."""

        def work(connection: Connection) -> None:
            found = connection.execute(select(owners).where(owners.c.name == row.name)).one_or_none()
            before = None if found is None else json.encode(OwnerRow(**found._mapping))
            new = insert(connection, owners).values(structs.asdict(row))
            change = new.on_conflict_do_update(index_elements=["name"], set_={"factor_ppm": row.factor_ppm})
            connection.execute(change)
            note(connection, Change(actor, "owner.set", row.name, before, json.encode(row)))
            count_change(connection, "ledger")

        await self._database.write(work)
        self._changed()
