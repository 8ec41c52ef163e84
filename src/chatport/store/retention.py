"""What becomes of old records: they go, and what they took from budgets stays.

The entries of removed postings are folded, for each budget and period, into those of one posting of kind `carry`, so
that every balance is still the sum of its entries. Only postings that are rolled up go; grants and corrections stay.
"""

from __future__ import annotations

import time
from typing import Final

from msgspec import structs
from sqlalchemy import Connection

from chatport.store.account import PostingRow
from chatport.store.books import INSERT_POSTING
from chatport.store.database import Database, rows_of, run_many
from chatport.store.usage import locked_mark

CARRY: Final = "carry"
"""The id of the posting that carries what removed ones took."""


class Retention:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def drop(self, before_ms: int, limit: int) -> bool:
        """Removes at most so many of the requests that were settled before, with their attempts and contents. Returns
        whether there may be more."""

        def work(connection: Connection) -> bool:
            mark = locked_mark(connection)
            oldest = rows_of(connection, OLDEST, {"mark": mark, "limit": limit})
            old = [sequence for sequence, settled_ms in oldest if settled_ms < before_ms]
            if not old:
                return False
            which = {"last": max(old), "before": before_ms}
            if rows_of(connection, ANY_ENTRY, which):
                run_many(connection, FOLD, [which | {"carry": _carry(connection)}])
            for statement in REMOVALS:
                run_many(connection, statement, [which])
            return len(oldest) == limit

        return await self._database.write(work)


def _carry(connection: Connection) -> int:
    """The sequence number of the posting that carries, made where there is none yet."""
    found = rows_of(connection, "SELECT sequence FROM postings WHERE id = :id", {"id": CARRY})
    if found:
        return int(found[0][0])
    now = int(time.time() * 1000)
    posting = PostingRow(id=CARRY, kind="carry", created_ms=now, settled_ms=now, note="of records that were removed")
    return INSERT_POSTING.numbered(connection, structs.astuple(posting), "sequence")


# --- Statements ------------------------------------------------------------------------------------------------------

OLDEST: Final = (
    "SELECT sequence, settled_ms FROM postings WHERE kind = 'request' AND sequence <= :mark "
    "AND sequence < (SELECT max(sequence) FROM postings) ORDER BY sequence LIMIT :limit"
)
"""Never the newest posting of all: SQLite would give its number to another one, which would then count as rolled up."""

_old = "postings WHERE kind = 'request' AND sequence <= :last AND settled_ms < :before"

ANY_ENTRY: Final = f"SELECT 1 FROM entries WHERE sequence IN (SELECT sequence FROM {_old}) LIMIT 1"  # noqa: S608  our own constant

FOLD: Final = (
    "INSERT INTO entries (budget_id, period, sequence, amount) "  # noqa: S608  as above
    "SELECT budget_id, period, CAST(:carry AS BIGINT), CAST(sum(amount) AS BIGINT) FROM entries "
    f"WHERE sequence IN (SELECT sequence FROM {_old}) GROUP BY budget_id, period "
    "ON CONFLICT (budget_id, period, sequence) DO UPDATE SET amount = entries.amount + excluded.amount"
)

REMOVALS: Final = (
    f"DELETE FROM entries WHERE sequence IN (SELECT sequence FROM {_old})",  # noqa: S608  as above
    f"DELETE FROM attempts WHERE request_id IN (SELECT id FROM {_old})",  # noqa: S608
    f"DELETE FROM contents WHERE request_id IN (SELECT id FROM {_old})",  # noqa: S608
    f"DELETE FROM {_old}",  # noqa: S608
)
