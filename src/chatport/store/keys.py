"""API keys as rows: all but the key itself, of which only its SHA-256 and its visible beginning are kept."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct, json, structs
from sqlalchemy import Connection, Row, select, update

from chatport.store.audit import Change, note
from chatport.store.budgets import BudgetRow, put_budget
from chatport.store.database import Database
from chatport.store.limits import LimitRow, put_limit
from chatport.store.revisions import count_change
from chatport.store.schema import insert, keys


class KeyRow(Struct, frozen=True, kw_only=True):
    """One key. Times are Unix seconds; `models` None means every model."""

    id: str
    name: str
    digest: bytes
    prefix: str
    admin: bool
    models: frozenset[str] | None
    created_at: int
    expires_at: int | None = None
    revoked_at: int | None = None
    owner: str | None = None
    """Who it was given to; several keys may have one owner."""
    keeps_content: bool | None = None
    """Whether what it says is kept with its requests; None: as configured."""


class KeyRows:
    """`changed` is told after each change that is made here."""

    def __init__(self, database: Database, changed: Callable[[], None]) -> None:
        self._database = database
        self._changed = changed

    async def all(self) -> list[KeyRow]:
        """Every key, revoked ones too, oldest first."""

        def work(connection: Connection) -> list[KeyRow]:
            return [_key(row) for row in connection.execute(select(keys).order_by(keys.c.created_at, keys.c.id))]

        return await self._database.read(work)

    async def add(
        self, row: KeyRow, limit: LimitRow | None = None, actor: str = "", budget: BudgetRow | None = None
    ) -> KeyRow:
        """Keeps a new key, never without its limit and its budget; returns the row that holds its digest, which is an
        older one, whose limits stay, where the key was known. `actor`: who sets them."""

        def work(connection: Connection) -> KeyRow:
            new = insert(connection, keys).values(_columns(row)).on_conflict_do_nothing(index_elements=["digest"])
            if connection.execute(new).rowcount:
                count_change(connection, "keys")
                note(connection, Change(actor, "key.create", row.id, None, _noted(row)))
                if limit is not None:
                    put_limit(connection, limit, actor)
                if budget is not None:
                    put_budget(connection, budget, actor)
                    count_change(connection, "ledger")
            return _key(connection.execute(select(keys).where(keys.c.digest == row.digest)).one())

        kept = await self._database.write(work)
        self._changed()
        return kept

    async def revoke(self, key_id: str, at: int, actor: str = "") -> None:
        """Marks a key as revoked; one that is revoked already keeps its time. `actor`: who does it."""

        def work(connection: Connection) -> None:
            mark = update(keys).where(keys.c.id == key_id, keys.c.revoked_at.is_(None)).values(revoked_at=at)
            if connection.execute(mark).rowcount:
                count_change(connection, "keys")
                note(connection, Change(actor, "key.revoke", key_id, None, json.encode({"revoked_at": at})))

        await self._database.write(work)
        self._changed()


def _noted(row: KeyRow) -> bytes:
    """What the audit log says of a key: never its digest."""
    columns = _columns(row) | {"models": None if row.models is None else sorted(row.models)}
    del columns["digest"]
    return json.encode(columns)


def _columns(row: KeyRow) -> dict[str, object]:
    models = None if row.models is None else json.encode(sorted(row.models))
    return structs.asdict(row) | {"models": models}


def _key(row: Row[tuple[object, ...]]) -> KeyRow:
    columns = dict(row._mapping)
    models = columns.pop("models")
    return KeyRow(**columns, models=None if models is None else json.decode(models, type=frozenset[str]))
