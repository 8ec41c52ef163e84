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

HEAD = "0004"
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
        return None if value is None else plain(value)


def plain(value: str) -> str:
    """The text as it is kept and looked up."""
    if value.isascii() and "\0" not in value:
        return value
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
    Column("owner", PlainText, comment="who it was given to; several keys may have one owner"),
    Column("keeps_content", Boolean, comment="whether what it says is kept with its requests; null: as configured"),
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

# --- The account ------------------------------------------------------------------------------------------------------
#
# Amounts are integers: nano-dollars (`nano`) or tokens; rates are pico-dollars. Times of this part are milliseconds
# where their name ends in `_ms`.

owners = Table(
    "owners",
    metadata,
    Column("name", PlainText, primary_key=True),
    Column("factor_ppm", BigInteger, nullable=False, comment="charge = cost x factor; millionths"),
    Column("created_at", BigInteger, nullable=False),
)

prices = Table(
    "prices",
    metadata,
    Column("id", PlainText, primary_key=True, comment="the version that postings name"),
    Column("model", PlainText, nullable=False),
    Column("source", PlainText, nullable=False, comment="configuration, command, embedded, or a list and its version"),
    Column("rates", LargeBinary, nullable=False, comment="JSON: pico-dollars by kind of token"),
    Column("effective_at", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("ended_at", BigInteger, comment="when another took its place, or none"),
    Index(None, "model", "effective_at"),
)

limits = Table(
    "limits",
    metadata,
    Column("kind", PlainText, primary_key=True, comment="key, owner, model or user"),
    Column("subject", PlainText, primary_key=True),
    Column("rules", LargeBinary, nullable=False, comment="JSON: how many of what in which time"),
    Column("mode", PlainText, nullable=False, comment="enforce or report"),
    Column("changed_at", BigInteger, nullable=False),
)

budgets = Table(
    "budgets",
    metadata,
    Column("id", PlainText, primary_key=True),
    Column("kind", PlainText, nullable=False, comment="key, owner, model or user"),
    Column("subject", PlainText, nullable=False, comment="the key's id, the owner's name, the model's id"),
    Column("end_user", PlainText, comment="of a budget for one end user under a key"),
    Column("unit", PlainText, nullable=False, comment="nano or token"),
    Column("amount", BigInteger, nullable=False, comment="for each period"),
    Column("period", PlainText, nullable=False, comment="once, day, week or month"),
    Column("zone", PlainText, nullable=False, comment="where its periods begin at midnight"),
    Column("mode", PlainText, nullable=False, comment="enforce or report"),
    Column("created_at", BigInteger, nullable=False),
    Column("ended_at", BigInteger),
    Column("parent", PlainText, index=True, comment="of one end user's: the budget for each of them"),
)

balances = Table(
    "balances",
    metadata,
    Column("budget_id", PlainText, ForeignKey("budgets.id"), primary_key=True),
    Column("period", BigInteger, primary_key=True, comment="when it began, 0: once"),
    Column("posted", BigInteger, nullable=False),
    Column("held", BigInteger, nullable=False),
    Column("granted", BigInteger, nullable=False, comment="on top of the budget's amount"),
)

workers = Table(
    "workers",
    metadata,
    Column("id", PlainText, primary_key=True),
    Column("started_ms", BigInteger, nullable=False),
    Column("seen_ms", BigInteger, nullable=False, comment="of its last heartbeat"),
)

holds = Table(
    "holds",
    metadata,
    Column("request_id", PlainText, primary_key=True),
    Column("worker_id", PlainText, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("account", LargeBinary, nullable=False, comment="JSON: who pays for what at which price, and from what"),
    Column("prompt_tokens", BigInteger, nullable=False, comment="as far as the last checkpoint knows"),
    Column("completion_tokens", BigInteger, nullable=False, comment="as far as the last checkpoint knows"),
    comment="of requests that are under way",
    sqlite_with_rowid=False,  # one tree instead of two: every request writes and removes one
)

postings = Table(
    "postings",
    metadata,
    Column("sequence", Sequence, primary_key=True, autoincrement=True),
    Column("id", PlainText, nullable=False, unique=True, comment="the request's, or one of its own"),
    Column("kind", PlainText, nullable=False, comment="request, grant, correction or carry"),
    Column("created_ms", BigInteger, nullable=False),
    Column("settled_ms", BigInteger, nullable=False),
    Column("key_id", PlainText),
    Column("owner", PlainText),
    Column("end_user", PlainText),
    Column("model", PlainText),
    Column("target", PlainText, comment="the one that answered"),
    Column("attempts", BigInteger, nullable=False),
    Column("streamed", Boolean, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False, comment="of the prompt's"),
    Column("cache_write_tokens", BigInteger, nullable=False, comment="of the prompt's"),
    Column("audio_prompt_tokens", BigInteger, nullable=False, comment="of the prompt's"),
    Column("image_tokens", BigInteger, nullable=False, comment="of the prompt's"),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("reasoning_tokens", BigInteger, nullable=False, comment="of the completion's"),
    Column("audio_completion_tokens", BigInteger, nullable=False, comment="of the completion's"),
    Column("counted_by", PlainText, nullable=False, comment="upstream, tokenizer or estimate"),
    Column("held_nano", BigInteger, nullable=False),
    Column("cost_nano", BigInteger, nullable=False, comment="what the upstream charges"),
    Column("charge_nano", BigInteger, nullable=False, comment="what the key pays"),
    Column("price_id", PlainText, comment="null: the model has no price"),
    Column("factor_ppm", BigInteger, nullable=False),
    Column("ending", PlainText, nullable=False),
    Column("over_hold", Boolean, nullable=False, comment="more was used than it could be bounded to"),
    Column("error", PlainText, comment="the status and code that the client was told"),
    Column("queue_ms", BigInteger, nullable=False),
    Column("first_ms", BigInteger, comment="until the first token"),
    Column("total_ms", BigInteger, nullable=False),
    Column("note", PlainText, comment="why, and by whom, of what is no request"),
    Index(None, "key_id", "created_ms"),
    comment="append-only: the account, and the record of every request",
)

entries = Table(
    "entries",
    metadata,
    Column("budget_id", PlainText, ForeignKey("budgets.id"), primary_key=True),
    Column("period", BigInteger, primary_key=True),
    Column("sequence", Sequence, ForeignKey("postings.sequence"), primary_key=True, autoincrement=False),
    Column("amount", BigInteger, nullable=False, comment="in the budget's unit"),
    Index(None, "sequence"),
    comment="what each posting took from, or gave to, which budget",
)

attempts = Table(
    "attempts",
    metadata,
    Column("request_id", PlainText, primary_key=True),
    Column("number", BigInteger, primary_key=True),
    Column("target", PlainText, nullable=False),
    Column("model", PlainText, nullable=False),
    Column("began_ms", BigInteger, nullable=False),
    Column("ended_ms", BigInteger, nullable=False),
    Column("outcome", PlainText, nullable=False, comment="answered, or how it failed"),
    Column("cost_nano", BigInteger, nullable=False, comment="the operator's, where it did not answer"),
    comment="of requests that were sent more than once, or that no target answered",
)

contents = Table(
    "contents",
    metadata,
    Column("request_id", PlainText, primary_key=True),
    Column("request", LargeBinary, nullable=False, comment="the body, as received"),
    Column("reply", LargeBinary, comment="JSON of the whole answer; null: there was none"),
    Column("expires_at", BigInteger, nullable=False, index=True),
    comment="what was said, where that was switched on",
)


def _usage(name: str, span: str) -> Table:
    """Postings added up by a span of time."""
    return Table(
        name,
        metadata,
        Column(span, BigInteger, primary_key=True, comment="Unix seconds when it began (UTC)"),
        Column("key_id", PlainText, primary_key=True),
        Column("owner", PlainText, primary_key=True),
        Column("end_user", PlainText, primary_key=True),
        Column("model", PlainText, primary_key=True),
        Column("requests", BigInteger, nullable=False),
        Column("failed", BigInteger, nullable=False, comment="of them, those without a complete answer"),
        Column("prompt_tokens", BigInteger, nullable=False),
        Column("cached_tokens", BigInteger, nullable=False),
        Column("completion_tokens", BigInteger, nullable=False),
        Column("reasoning_tokens", BigInteger, nullable=False),
        Column("cost_nano", BigInteger, nullable=False),
        Column("charge_nano", BigInteger, nullable=False),
        Index(None, "key_id", span),
        comment="postings added up, as far as the revision `usage` says; what was null is empty here",
    )


usage_hours = _usage("usage_hours", "hour")
usage_days = _usage("usage_days", "day")

audit = Table(
    "audit",
    metadata,
    Column("sequence", Sequence, primary_key=True, autoincrement=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("actor", PlainText, nullable=False),
    Column("action", PlainText, nullable=False),
    Column("subject", PlainText, nullable=False),
    Column("before", LargeBinary, comment="JSON"),
    Column("after", LargeBinary, comment="JSON"),
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
    (revisions, {"topic": "ledger", "revision": 0}),
    (revisions, {"topic": "usage", "revision": 0}),
    (alembic_version, {"version_num": HEAD}),
]
"""What a new database holds."""


def insert(connection: Connection, table: Table) -> sqlite.Insert | postgresql.Insert:
    """An INSERT that knows ON CONFLICT, which both databases spell alike and SQLAlchemy keeps in each one's room."""
    if connection.dialect.name == "sqlite":
        return sqlite.insert(table)
    from sqlalchemy.dialects import postgresql  # noqa: PLC0415  3 MB that a server on SQLite need not have

    return postgresql.insert(table)
