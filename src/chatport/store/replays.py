"""Replies kept for idempotency keys, as rows."""

from __future__ import annotations

from msgspec import Struct, structs
from sqlalchemy import Connection, delete, select

from chatport.store.database import Database, Work
from chatport.store.schema import insert, replays


class ReplayRow(Struct, frozen=True, kw_only=True):
    """One reply. Digests are SHA-256, `created_at` is Unix seconds."""

    key_id: str
    name_digest: bytes
    request_digest: bytes
    content_type: str
    body: bytes
    created_at: int


def keeping(row: ReplayRow) -> Work[None]:
    """What a settlement does besides, to keep a reply in place of an expired one of the same name."""
    columns = structs.asdict(row)

    def work(connection: Connection) -> None:
        new = insert(connection, replays).values(columns)
        connection.execute(new.on_conflict_do_update(index_elements=["key_id", "name_digest"], set_=columns))

    return work


class ReplayRows:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, key_id: str, name_digest: bytes, *, after: int) -> ReplayRow | None:
        """The reply kept under this name, if it was kept later than `after`."""
        query = select(replays).where(
            replays.c.key_id == key_id, replays.c.name_digest == name_digest, replays.c.created_at > after
        )

        def work(connection: Connection) -> ReplayRow | None:
            row = connection.execute(query).one_or_none()
            return None if row is None else ReplayRow(**row._mapping)

        return await self._database.read(work)

    async def prune(self, until: int) -> int:
        """Removes what was kept at `until` or earlier; returns how many."""

        def work(connection: Connection) -> int:
            return connection.execute(delete(replays).where(replays.c.created_at <= until)).rowcount

        return await self._database.write(work)
