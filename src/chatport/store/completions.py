"""Stored completions as rows. Every look-up names the key it is made for; other keys' rows are not there."""

from __future__ import annotations

from itertools import starmap

from msgspec import Struct, json
from sqlalchemy import ColumnElement, Connection, Row, Select, delete, exists, or_, select, tuple_, update

from chatport.store.database import Database, Work
from chatport.store.schema import completion_tags as tags
from chatport.store.schema import completions, insert


class CompletionRow(Struct, frozen=True, kw_only=True):
    """One completion, without the messages it answered."""

    id: str
    key_id: str
    created_at: int
    """Unix seconds."""
    model: str
    requested_model: str
    body: bytes
    """JSON, without `metadata`."""
    metadata: dict[str, str] | None
    sequence: int = 0
    """Numbers the rows in the order they were added; given by the database."""


class Selection(Struct, frozen=True, kw_only=True):
    """Which rows a page is made of: up to `limit` of one key's that follow `after`."""

    key_id: str
    model: str | None = None
    """The name that was asked for or that answered; None: any."""
    metadata: dict[str, str] = {}
    """Pairs that must all be there."""
    after: CompletionRow | None = None
    limit: int
    descending: bool = False


def keeping(row: CompletionRow, messages: bytes) -> Work[None]:
    """What a settlement does besides, to keep a completion and the JSON array of the messages it answered."""

    def work(connection: Connection) -> None:
        columns = {name: getattr(row, name) for name in row.__struct_fields__ if name != "sequence"}
        columns |= {"messages": messages, "metadata": _encoded(row.metadata)}
        new = insert(connection, completions).values(columns).on_conflict_do_nothing(index_elements=["id"])
        sequence = connection.execute(new.returning(completions.c.sequence)).scalar_one_or_none()
        if sequence is not None:
            _tag(connection, sequence, row.metadata)

    return work


class CompletionRows:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, key_id: str, completion_id: str) -> CompletionRow | None:
        return await self._database.read(lambda connection: _find(connection, key_id, completion_id))

    async def messages(self, key_id: str, completion_id: str) -> bytes | None:
        """The JSON array that was kept with the completion."""

        def work(connection: Connection) -> bytes | None:
            return connection.execute(
                select(completions.c.messages).where(*_is(key_id, completion_id))
            ).scalar_one_or_none()

        return await self._database.read(work)

    async def page(self, wanted: Selection) -> list[CompletionRow]:
        """The rows in order of time and, where that is equal, of adding."""
        query = _listed.where(completions.c.key_id == wanted.key_id, *starmap(_tagged, wanted.metadata.items()))
        if wanted.model is not None:
            query = query.where(or_(completions.c.model == wanted.model, completions.c.requested_model == wanted.model))
        query = _ordered(query, wanted.after, wanted.descending).limit(wanted.limit)
        return await self._database.read(lambda connection: [_completion(row) for row in connection.execute(query)])

    async def set_metadata(
        self, key_id: str, completion_id: str, metadata: dict[str, str] | None
    ) -> CompletionRow | None:
        """Replaces the metadata; returns the row as it is then, None where there is none."""

        def work(connection: Connection) -> CompletionRow | None:
            change = update(completions).where(*_is(key_id, completion_id)).values(metadata=_encoded(metadata))
            connection.execute(change)
            row = _find(connection, key_id, completion_id)
            if row is not None:
                connection.execute(delete(tags).where(tags.c.sequence == row.sequence))
                _tag(connection, row.sequence, metadata)
            return row

        return await self._database.write(work)

    async def remove(self, key_id: str, completion_id: str) -> bool:
        """Whether there was one to remove."""

        def work(connection: Connection) -> bool:
            return connection.execute(delete(completions).where(*_is(key_id, completion_id))).rowcount > 0

        return await self._database.write(work)


_listed = select(*(column for column in completions.c if column.name != "messages"))


def _is(key_id: str, completion_id: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return completions.c.key_id == key_id, completions.c.id == completion_id


def _find(connection: Connection, key_id: str, completion_id: str) -> CompletionRow | None:
    row = connection.execute(_listed.where(*_is(key_id, completion_id))).one_or_none()
    return None if row is None else _completion(row)


def _ordered(
    query: Select[tuple[object, ...]], after: CompletionRow | None, descending: bool
) -> Select[tuple[object, ...]]:
    place = tuple_(completions.c.created_at, completions.c.sequence)
    if after is not None:
        here = tuple_(after.created_at, after.sequence)
        query = query.where(place < here if descending else place > here)
    columns = (completions.c.created_at, completions.c.sequence)
    return query.order_by(*(column.desc() if descending else column for column in columns))


def _tagged(name: str, value: str) -> ColumnElement[bool]:
    """That a completion's metadata holds this pair."""
    return exists().where(
        tags.c.sequence == completions.c.sequence, tags.c.name == name.encode(), tags.c.value == value.encode()
    )


def _tag(connection: Connection, sequence: int, metadata: dict[str, str] | None) -> None:
    if metadata:
        rows = [
            {"sequence": sequence, "name": name.encode(), "value": value.encode()} for name, value in metadata.items()
        ]
        connection.execute(tags.insert(), rows)


def _encoded(metadata: dict[str, str] | None) -> bytes | None:
    return None if metadata is None else json.encode(metadata)


def _completion(row: Row[tuple[object, ...]]) -> CompletionRow:
    columns = dict(row._mapping)
    metadata = columns.pop("metadata")
    return CompletionRow(**columns, metadata=None if metadata is None else json.decode(metadata, type=dict[str, str]))
