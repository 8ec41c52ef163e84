"""How a process notices what another one has changed: a number for each topic, counted up by every change of it."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from sqlalchemy import Connection, select, update

from chatport.store.database import Database
from chatport.store.schema import revisions

Topic: TypeAlias = Literal["keys", "ledger"]

WATCHED: Final[tuple[Topic, ...]] = ("keys", "ledger")
"""`keys`: who may come in; `ledger`: owners, prices, limits and budgets."""


def count_change(connection: Connection, topic: Topic) -> None:
    """To be called in the transaction that makes the change."""
    connection.execute(update(revisions).where(revisions.c.topic == topic).values(revision=revisions.c.revision + 1))


class Revisions:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def current(self) -> dict[str, int]:
        """The number of every topic that is watched."""
        query = select(revisions.c.topic, revisions.c.revision).where(revisions.c.topic.in_(WATCHED))

        def work(connection: Connection) -> dict[str, int]:
            return {str(topic): int(revision) for topic, revision in connection.execute(query)}

        return await self._database.read(work)
