"""Limits as rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

from msgspec import Struct, json, structs
from sqlalchemy import Connection, Row, delete, select

from chatport.store.audit import Change, note
from chatport.store.database import Database
from chatport.store.revisions import count_change
from chatport.store.schema import insert, limits

Kind: TypeAlias = Literal["key", "owner", "model", "user"]
Mode: TypeAlias = Literal["enforce", "report"]


class Rules(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How many requests and tokens in a minute, an hour, a day, and how many requests at the same time; None: any."""

    rpm: int | None = None
    rph: int | None = None
    rpd: int | None = None
    tpm: int | None = None
    tph: int | None = None
    tpd: int | None = None
    concurrency: int | None = None


class Limit(Struct, frozen=True, kw_only=True):
    """The rules of one subject: a key's id (of `user`, whose end users are counted each apart, too), an owner's name,
    a model's id; `*`: each one that has none of its own."""

    kind: Kind
    subject: str
    rules: Rules
    mode: Mode = "enforce"

    @property
    def scope(self) -> str:
        """As it is written in the configuration and in commands: `key:key_1a2b`."""
        return f"{self.kind}:{self.subject}"


class LimitRow(Limit, frozen=True, kw_only=True):
    """A limit that is kept. `changed_at`: Unix seconds."""

    changed_at: int


class LimitRows:
    """`changed` is told after each change that is made here."""

    def __init__(self, database: Database, changed: Callable[[], None]) -> None:
        self._database = database
        self._changed = changed

    async def all(self) -> list[LimitRow]:
        """Every limit, by kind and subject."""

        def work(connection: Connection) -> list[LimitRow]:
            return [_limit(row) for row in connection.execute(select(limits))]

        return sorted(await self._database.read(work), key=lambda row: (row.kind, row.subject))

    async def set(self, row: LimitRow, actor: str) -> None:
        """Keeps the limit, in place of what its subject had."""
        await self._database.write(lambda connection: put_limit(connection, row, actor))
        self._changed()

    async def remove(self, kind: Kind, subject: str, actor: str) -> LimitRow | None:
        """The limit that there was, None where there was none."""

        def work(connection: Connection) -> LimitRow | None:
            before = _find(connection, kind, subject)
            if before is not None:
                connection.execute(delete(limits).where(limits.c.kind == kind, limits.c.subject == subject))
                note(connection, Change(actor, "limit.remove", before.scope, json.encode(before), None))
                count_change(connection, "ledger")
            return before

        removed = await self._database.write(work)
        self._changed()
        return removed


def put_limit(connection: Connection, row: LimitRow, actor: str) -> None:
    """`LimitRows.set` in a transaction that does more than this; whoever makes it tells of the change."""
    before = _find(connection, row.kind, row.subject)
    columns = structs.asdict(row) | {"rules": json.encode(row.rules)}
    new = insert(connection, limits).values(columns)
    connection.execute(new.on_conflict_do_update(index_elements=["kind", "subject"], set_=columns))
    note(
        connection,
        Change(actor, "limit.set", row.scope, None if before is None else json.encode(before), json.encode(row)),
    )
    count_change(connection, "ledger")


def _find(connection: Connection, kind: Kind, subject: str) -> LimitRow | None:
    query = select(limits).where(limits.c.kind == kind, limits.c.subject == subject)
    row = connection.execute(query).one_or_none()
    return None if row is None else _limit(row)


def _limit(row: Row[tuple[object, ...]]) -> LimitRow:
    columns = dict(row._mapping)
    return LimitRow(**columns | {"rules": json.decode(columns["rules"], type=Rules)})
