"""The tables. Migrations lead here; a test compares the two on both databases.

What comes from clients (bodies, metadata, idempotency keys) is kept as bytes: PostgreSQL's text can't hold U+0000, and
nothing here needs to look inside. Times are integers, Unix seconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    TypeDecorator,
)
from sqlalchemy.dialects import sqlite

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql

HEAD = "0001"
"""The newest migration's revision, so that a database that has it, or nothing at all, is opened without Alembic."""

metadata = MetaData(
    naming_convention={
        "ix": "%(table_name)s_%(column_0_N_name)s",
        "uq": "%(table_name)s_%(column_0_N_name)s_unique",
        "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
        "pk": "%(table_name)s_pkey",
    }
)


class PlainText(TypeDecorator[str]):
    """Text that can be looked up by anything a client says: what PostgreSQL's text can't hold becomes U+FFFD, which
    none of our own ids and names contain, so that such a look-up finds nothing."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        if value is None:
            return None
        return value.replace("\0", "\ufffd").encode(errors="replace").decode()


Sequence = BigInteger().with_variant(Integer, "sqlite")
"""64 bit on both: SQLite numbers rows by itself only where the type says INTEGER."""

keys = Table(
    "keys",
    metadata,
    Column("id", PlainText, primary_key=True),
    Column("name", PlainText, nullable=False),
    Column("digest", LargeBinary, nullable=False, unique=True, comment="SHA-256 of the key; the key is not kept"),
    Column("prefix", PlainText, nullable=False, comment="the key's visible beginning"),
    Column("admin", Boolean, nullable=False),
    Column("models", LargeBinary, comment="JSON array of the names it may use; null: all"),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("revoked_at", BigInteger),
)

revisions = Table(
    "revisions",
    metadata,
    Column("topic", PlainText, primary_key=True),
    Column("revision", BigInteger, nullable=False, comment="counts the changes, in the transaction that makes them"),
)

completions = Table(
    "completions",
    metadata,
    Column("sequence", Sequence, primary_key=True, autoincrement=True, comment="breaks ties of created_at"),
    Column("id", PlainText, nullable=False, unique=True),
    Column("key_id", PlainText, ForeignKey("keys.id"), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("model", PlainText, nullable=False, comment="the name that answered"),
    Column("requested_model", PlainText, nullable=False, comment="the name that was asked for"),
    Column("body", LargeBinary, nullable=False, comment="JSON of the completion, without metadata"),
    Column("messages", LargeBinary, nullable=False, comment="JSON array of the input messages"),
    Column("metadata", LargeBinary, comment="JSON object, or null"),
    Index(None, "key_id", "created_at", "sequence"),
)

completion_tags = Table(
    "completion_tags",
    metadata,
    Column("sequence", Sequence, ForeignKey("completions.sequence", ondelete="CASCADE"), primary_key=True),
    Column("name", LargeBinary, primary_key=True),
    Column("value", LargeBinary, nullable=False),
    comment="metadata again, a row a pair, to filter by",
)

replays = Table(
    "replays",
    metadata,
    Column("key_id", PlainText, ForeignKey("keys.id"), primary_key=True),
    Column("name_digest", LargeBinary, primary_key=True, comment="SHA-256 of the Idempotency-Key"),
    Column("request_digest", LargeBinary, nullable=False, comment="SHA-256 of the request's body"),
    Column("content_type", PlainText, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False, index=True),
)

# Alembic's own, in its own form.
alembic_version = Table(
    "alembic_version",
    metadata,
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)

FIRST_ROWS: list[tuple[Table, dict[str, object]]] = [
    (revisions, {"topic": "keys", "revision": 0}),
    (alembic_version, {"version_num": HEAD}),
]
"""What a new database holds."""


def insert(connection: Connection, table: Table) -> sqlite.Insert | postgresql.Insert:
    """An INSERT that knows ON CONFLICT, which both databases spell alike and SQLAlchemy keeps in each one's room."""
    if connection.dialect.name == "sqlite":
        return sqlite.insert(table)
    from sqlalchemy.dialects import postgresql  # noqa: PLC0415  3 MB that a server on SQLite need not have

    return postgresql.insert(table)
