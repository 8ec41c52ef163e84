"""What was used, added up: by days and hours that are rolled up in the background, and by the postings beyond them.

The revision `usage` is the sequence number of the last posting that is in `usage_hours` and `usage_days`, which hold
the same. A query takes the hours of the day it begins in, the days after that, and the postings beyond the mark, all
from one state of the database, so that each posting counts exactly once at any moment.

PostgreSQL numbers postings before they are committed, so one with a lower number may appear after one with a higher.
Before the mark moves, `roll_up` therefore waits, by a lock that is held for an instant, until everything numbered so
far is committed or undone, and never moves the mark further than that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal, TypeAlias

from msgspec import Struct
from sqlalchemy import Connection

from chatport.store.database import Database, rows_of, run_many

HOUR: Final = 3600

DAY: Final = 86_400

By: TypeAlias = Literal["key", "owner", "user", "model", "day"]

GROUPS: Final[dict[By, str]] = {
    "key": "key_id",
    "owner": "owner",
    "user": "end_user",
    "model": "model",
    "day": "day",
}


class Sum(Struct, frozen=True, kw_only=True):
    """What one group of requests came to."""

    group: str | int
    """The key's id, the name, the model's id, empty where requests had none; of a day its beginning, Unix seconds."""
    requests: int
    failed: int
    """Of them, those without a complete answer."""
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    cost_nano: int
    charge_nano: int


class UsageRows:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def sums(self, by: By, since: int = 0, key_id: str | None = None) -> list[Sum]:
        """What requests came to since the beginning of the hour (UTC) that `since`, Unix seconds, is in; the most
        expensive group first, days in order. `key_id`: only those of one key."""
        parameters: dict[str, Any] = {"since": since // HOUR * HOUR, "next_day": -(-since // DAY) * DAY}
        parameters |= {} if key_id is None else {"key_id": key_id}
        statement = _sums(by, of_key=key_id is not None)

        def work(connection: Connection) -> list[Sum]:
            mark = {"mark": _mark(connection)}
            return [_sum(row) for row in rows_of(connection, statement, parameters | mark)]

        found = await self._database.read(work)
        if by == "day":
            return sorted(found, key=lambda each: each.group)
        return sorted(found, key=lambda each: (-each.charge_nano, -each.prompt_tokens - each.completion_tokens))

    async def horizon(self) -> int:
        """The number of the newest posting, when everything up to it is committed or undone."""
        return await self._database.write(_horizon)

    async def roll_up(self, upto: int, limit: int) -> bool:
        """Adds at most so many postings to hours and days and moves the mark, in one transaction. `upto`: a `horizon`.
        Returns whether there are more."""

        def work(connection: Connection) -> bool:
            mark = locked_mark(connection)
            end = min(mark + limit, upto)
            if end <= mark:
                return False
            for statement in ADD:
                run_many(connection, statement, [{"mark": mark, "end": end}])
            run_many(connection, MOVE, [{"end": end}])
            return end < upto

        return await self._database.write(work)


def locked_mark(connection: Connection) -> int:
    """The sequence number up to which postings are rolled up; nobody else moves it until the transaction ends."""
    statement = MARK if connection.dialect.name == "sqlite" else MARK + " FOR UPDATE"
    return _only(rows_of(connection, statement, {}))


def _mark(connection: Connection) -> int:
    return _only(rows_of(connection, MARK, {}))


def _horizon(connection: Connection) -> int:
    if connection.dialect.name != "sqlite":
        # Waits for everybody who is inserting, and is released at once. SQLite has one writer at a time.
        connection.exec_driver_sql("LOCK TABLE postings IN SHARE MODE")
    return _only(rows_of(connection, "SELECT coalesce(max(sequence), 0) FROM postings", {}))


def _only(rows: Sequence[Sequence[Any]]) -> int:
    [(value,)] = rows
    return int(value)


def _sum(row: Sequence[Any]) -> Sum:
    group, *numbers = row
    return Sum(
        group=group if isinstance(group, str) else int(group),
        **dict(zip(Sum.__struct_fields__[1:], map(int, numbers), strict=True)),
    )


# --- Statements ------------------------------------------------------------------------------------------------------
# Put together from our own constants; what comes from outside is a parameter.

NUMBERS: Final = Sum.__struct_fields__[1:]

OF_POSTINGS: Final = (
    "SELECT created_ms / 3600000 * 3600 AS hour, created_ms / 86400000 * 86400 AS day, "
    "coalesce(key_id, '') AS key_id, coalesce(owner, '') AS owner, "
    "coalesce(end_user, '') AS end_user, coalesce(model, '') AS model, 1 AS requests, "
    "CASE ending WHEN 'complete' THEN 0 ELSE 1 END AS failed, prompt_tokens, cached_tokens, completion_tokens, "
    "reasoning_tokens, cost_nano, charge_nano FROM postings WHERE kind = 'request' AND sequence > :mark"
)
"""Postings in the form of spans of one request each."""

MARK: Final = "SELECT revision FROM revisions WHERE topic = 'usage'"

OF_FIRST_DAY: Final = "hour >= :since AND hour < :next_day"

MOVE: Final = "UPDATE revisions SET revision = :end WHERE topic = 'usage'"

_summed = ", ".join(f"sum({name}) AS {name}" for name in NUMBERS)


def _adding(table: str, span: str) -> str:
    """Adds the postings from the mark to `:end` to the spans that they fall in."""
    group = f"{span}, key_id, owner, end_user, model"
    added = ", ".join(f"{name} = {table}.{name} + excluded.{name}" for name in NUMBERS)
    return (
        f"INSERT INTO {table} ({group}, {', '.join(NUMBERS)}) "  # noqa: S608
        f"SELECT {group}, {_summed} FROM ({OF_POSTINGS} AND sequence <= :end) AS single GROUP BY {group} "
        f"ON CONFLICT ({group}) DO UPDATE SET {added}"
    )


ADD: Final = (_adding("usage_hours", "hour"), _adding("usage_days", "day"))


def _sums(by: By, *, of_key: bool) -> str:
    """Each part is added up by itself, so that none of them is copied as a whole."""
    which = " AND key_id = :key_id" if of_key else ""
    group = GROUPS[by]
    of_hours = "hour / 86400 * 86400" if by == "day" else group
    parts = (
        f"SELECT {of_hours} AS part, {_summed} FROM usage_hours WHERE {OF_FIRST_DAY}{which} GROUP BY 1",  # noqa: S608
        f"SELECT {group} AS part, {_summed} FROM usage_days WHERE day >= :next_day{which} GROUP BY 1",  # noqa: S608
        f"SELECT {group} AS part, {_summed} FROM ({OF_POSTINGS}) AS single WHERE hour >= :since{which} GROUP BY 1",  # noqa: S608
    )
    return f"SELECT part, {_summed} FROM ({' UNION ALL '.join(parts)}) AS parts GROUP BY part"  # noqa: S608
