"""Who changed which key, budget, price or limit, when, from what to what."""

from __future__ import annotations

import time
from typing import Any

from msgspec import Raw, Struct, structs
from sqlalchemy import Connection, Row, select

from chatport.store.database import Database
from chatport.store.schema import audit


class AuditRow(Struct, frozen=True, kw_only=True):
    """One change."""

    sequence: int
    at_ms: int
    """Unix milliseconds."""
    actor: str
    action: str
    """`THING.VERB`, such as `budget.create`."""
    subject: str
    before: Raw | None
    after: Raw | None


class Change(Struct, frozen=True):
    """What somebody did. `before`, `after`: JSON."""

    actor: str
    action: str
    subject: str
    before: bytes | None = None
    after: bytes | None = None


def note(connection: Connection, change: Change) -> None:
    """To be called in the transaction that makes the change."""
    connection.execute(audit.insert().values(structs.asdict(change) | {"at_ms": int(time.time() * 1000)}))


class AuditRows:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def latest(self, limit: int, before: int | None = None) -> list[AuditRow]:
        """The newest changes first. `before`: the sequence number that those of an earlier page ended with."""
        query = select(audit).order_by(audit.c.sequence.desc()).limit(limit)
        if before is not None:
            query = query.where(audit.c.sequence < before)

        def work(connection: Connection) -> list[AuditRow]:
            return [_row(row) for row in connection.execute(query)]

        return await self._database.read(work)


def _row(row: Row[Any]) -> AuditRow:
    columns = dict(row._mapping)
    said = {name: None if columns[name] is None else Raw(columns[name]) for name in ("before", "after")}
    return AuditRow(**(columns | said))
