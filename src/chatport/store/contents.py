"""What was said, kept with its request where that is switched on."""

from __future__ import annotations

from msgspec import Struct, structs
from sqlalchemy import Connection, delete, select

from chatport.store.database import Database, Work
from chatport.store.schema import contents, insert


class ContentRow(Struct, frozen=True, kw_only=True):
    """`request`: the body as received; `reply`: JSON of the whole answer, None where there was none; Unix seconds."""

    request_id: str
    request: bytes
    reply: bytes | None
    expires_at: int


def keeping(row: ContentRow) -> Work[None]:
    """What a settlement does besides, to keep it."""

    def work(connection: Connection) -> None:
        connection.execute(insert(connection, contents).values(structs.asdict(row)).on_conflict_do_nothing())

    return work


class ContentRows:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def prune(self, until: int, limit: int) -> int:
        """Removes at most so many of what expired at `until`, Unix seconds, or earlier; returns how many."""
        expired = select(contents.c.request_id).where(contents.c.expires_at <= until).limit(limit)

        def work(connection: Connection) -> int:
            return connection.execute(delete(contents).where(contents.c.request_id.in_(expired))).rowcount

        return await self._database.write(work)
