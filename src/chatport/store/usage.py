"""What was used, added up: by hours that are rolled up in the background, and by the postings beyond them.

The revision `usage` is the sequence number of the last posting that is in `usage_hours`; a query reads it, the hours
and the postings beyond it in one state of the database, so that each posting counts exactly once at any moment.

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
    "day": "hour / 86400 * 86400",
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
        parameters = {"since": since // HOUR * HOUR} | ({} if key_id is None else {"key_id": key_id})
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
        """Adds at most so many postings to the hours and moves the mark, in one transaction. `upto`: a `horizon`.
        Returns whether there are more."""

        def work(connection: Connection) -> bool:
            mark = locked_mark(connection)
            end = min(mark + limit, upto)
            if end <= mark:
                return False
            run_many(connection, ADD, [{"mark": mark, "end": end}])
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
    "SELECT created_ms / 3600000 * 3600 AS hour, coalesce(key_id, '') AS key_id, coalesce(owner, '') AS owner, "
    "coalesce(end_user, '') AS end_user, coalesce(model, '') AS model, 1 AS requests, "
    "CASE ending WHEN 'complete' THEN 0 ELSE 1 END AS failed, prompt_tokens, cached_tokens, completion_tokens, "
    "reasoning_tokens, cost_nano, charge_nano FROM postings WHERE kind = 'request' AND sequence > :mark"
)
"""Postings in the form of hours of one request each."""

MARK: Final = "SELECT revision FROM revisions WHERE topic = 'usage'"

MOVE: Final = "UPDATE revisions SET revision = :end WHERE topic = 'usage'"

_added = ", ".join(f"{name} = usage_hours.{name} + excluded.{name}" for name in NUMBERS)
_summed = ", ".join(f"sum({name}) AS {name}" for name in NUMBERS)

ADD: Final = (
    f"INSERT INTO usage_hours (hour, key_id, owner, end_user, model, {', '.join(NUMBERS)}) "  # noqa: S608
    f"SELECT hour, key_id, owner, end_user, model, {_summed} FROM ({OF_POSTINGS} AND sequence <= :end) AS single "
    f"GROUP BY hour, key_id, owner, end_user, model "
    f"ON CONFLICT (hour, key_id, owner, end_user, model) DO UPDATE SET {_added}"
)


def _sums(by: By, *, of_key: bool) -> str:
    """Each half is added up by itself: the postings are few, and the hours need no copy."""
    which = " AND key_id = :key_id" if of_key else ""
    halves = (
        f"SELECT {GROUPS[by]} AS part, {_summed} FROM usage_hours WHERE hour >= :since{which} GROUP BY 1",  # noqa: S608
        f"SELECT {GROUPS[by]} AS part, {_summed} FROM ({OF_POSTINGS}) AS single WHERE hour >= :since{which} GROUP BY 1",  # noqa: S608
    )
    return f"SELECT part, {_summed} FROM ({' UNION ALL '.join(halves)}) AS halves GROUP BY part"  # noqa: S608
