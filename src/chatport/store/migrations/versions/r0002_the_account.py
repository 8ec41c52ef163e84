"""The account: prices, limits, budgets and their balances, holds and postings, what is reported of them."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

Text = sa.Text()
Sequence = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.add_column("keys", sa.Column("owner", Text, comment="who it was given to; several keys may have one owner"))
    op.add_column(
        "keys",
        sa.Column(
            "keeps_content",
            sa.Boolean,
            comment="whether what it says is kept with its requests; null: as configured",
        ),
    )
    create_rules()
    create_account()
    create_reports()
    revisions = sa.table("revisions", sa.column("topic", Text), sa.column("revision", sa.BigInteger))
    op.bulk_insert(revisions, [{"topic": "ledger", "revision": 0}, {"topic": "usage", "revision": 0}])


def create_rules() -> None:
    op.create_table(
        "owners",
        sa.Column("name", Text, nullable=False),
        sa.Column("factor_ppm", sa.BigInteger, nullable=False, comment="charge = cost x factor; millionths"),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("name", name="owners_pkey"),
    )
    op.create_table(
        "prices",
        sa.Column("id", Text, nullable=False, comment="the version that postings name"),
        sa.Column("model", Text, nullable=False),
        sa.Column(
            "source", Text, nullable=False, comment="configuration, command, embedded, or a list and its version"
        ),
        sa.Column("rates", sa.LargeBinary, nullable=False, comment="JSON: pico-dollars by kind of token"),
        sa.Column("effective_at", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("ended_at", sa.BigInteger, comment="when another took its place, or none"),
        sa.PrimaryKeyConstraint("id", name="prices_pkey"),
    )
    op.create_index("prices_model_effective_at", "prices", ["model", "effective_at"], unique=False)
    op.create_table(
        "limits",
        sa.Column("kind", Text, nullable=False, comment="key, owner, model or user"),
        sa.Column("subject", Text, nullable=False),
        sa.Column("rules", sa.LargeBinary, nullable=False, comment="JSON: how many of what in which time"),
        sa.Column("mode", Text, nullable=False, comment="enforce or report"),
        sa.Column("changed_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("kind", "subject", name="limits_pkey"),
    )
    op.create_table(
        "budgets",
        sa.Column("id", Text, nullable=False),
        sa.Column("kind", Text, nullable=False, comment="key, owner, model or user"),
        sa.Column("subject", Text, nullable=False, comment="the key's id, the owner's name, the model's id"),
        sa.Column("end_user", Text, comment="of a budget for one end user under a key"),
        sa.Column("unit", Text, nullable=False, comment="nano or token"),
        sa.Column("amount", sa.BigInteger, nullable=False, comment="for each period"),
        sa.Column("period", Text, nullable=False, comment="once, day, week or month"),
        sa.Column("zone", Text, nullable=False, comment="where its periods begin at midnight"),
        sa.Column("mode", Text, nullable=False, comment="enforce or report"),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("ended_at", sa.BigInteger),
        sa.PrimaryKeyConstraint("id", name="budgets_pkey"),
    )
    op.create_table(
        "balances",
        sa.Column("budget_id", Text, nullable=False),
        sa.Column("period", sa.BigInteger, nullable=False, comment="when it began, 0: once"),
        sa.Column("posted", sa.BigInteger, nullable=False),
        sa.Column("held", sa.BigInteger, nullable=False),
        sa.Column("granted", sa.BigInteger, nullable=False, comment="on top of the budget's amount"),
        sa.ForeignKeyConstraint(["budget_id"], ["budgets.id"], name="balances_budget_id_fkey"),
        sa.PrimaryKeyConstraint("budget_id", "period", name="balances_pkey"),
    )


def create_account() -> None:
    op.create_table(
        "workers",
        sa.Column("id", Text, nullable=False),
        sa.Column("started_ms", sa.BigInteger, nullable=False),
        sa.Column("seen_ms", sa.BigInteger, nullable=False, comment="of its last heartbeat"),
        sa.PrimaryKeyConstraint("id", name="workers_pkey"),
    )
    op.create_table(
        "holds",
        sa.Column("request_id", Text, nullable=False),
        sa.Column("worker_id", Text, nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column(
            "account", sa.LargeBinary, nullable=False, comment="JSON: who pays for what at which price, and from what"
        ),
        sa.Column("prompt_tokens", sa.BigInteger, nullable=False, comment="as far as the last checkpoint knows"),
        sa.Column("completion_tokens", sa.BigInteger, nullable=False, comment="as far as the last checkpoint knows"),
        sa.PrimaryKeyConstraint("request_id", name="holds_pkey"),
        comment="of requests that are under way",
    )
    op.create_table(
        "postings",
        sa.Column("sequence", Sequence, autoincrement=True, nullable=False),
        sa.Column("id", Text, nullable=False, comment="the request's, or one of its own"),
        sa.Column("kind", Text, nullable=False, comment="request, grant, correction or carry"),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("settled_ms", sa.BigInteger, nullable=False),
        sa.Column("key_id", Text),
        sa.Column("owner", Text),
        sa.Column("end_user", Text),
        sa.Column("model", Text),
        sa.Column("target", Text, comment="the one that answered"),
        sa.Column("attempts", sa.BigInteger, nullable=False),
        sa.Column("streamed", sa.Boolean, nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger, nullable=False),
        sa.Column("cached_tokens", sa.BigInteger, nullable=False, comment="of the prompt's"),
        sa.Column("cache_write_tokens", sa.BigInteger, nullable=False, comment="of the prompt's"),
        sa.Column("audio_prompt_tokens", sa.BigInteger, nullable=False, comment="of the prompt's"),
        sa.Column("image_tokens", sa.BigInteger, nullable=False, comment="of the prompt's"),
        sa.Column("completion_tokens", sa.BigInteger, nullable=False),
        sa.Column("reasoning_tokens", sa.BigInteger, nullable=False, comment="of the completion's"),
        sa.Column("audio_completion_tokens", sa.BigInteger, nullable=False, comment="of the completion's"),
        sa.Column("counted_by", Text, nullable=False, comment="upstream, tokenizer or estimate"),
        sa.Column("held_nano", sa.BigInteger, nullable=False),
        sa.Column("cost_nano", sa.BigInteger, nullable=False, comment="what the upstream charges"),
        sa.Column("charge_nano", sa.BigInteger, nullable=False, comment="what the key pays"),
        sa.Column("price_id", Text, comment="null: the model has no price"),
        sa.Column("factor_ppm", sa.BigInteger, nullable=False),
        sa.Column("ending", Text, nullable=False),
        sa.Column("over_hold", sa.Boolean, nullable=False, comment="more was used than it could be bounded to"),
        sa.Column("error", Text, comment="the status and code that the client was told"),
        sa.Column("queue_ms", sa.BigInteger, nullable=False),
        sa.Column("first_ms", sa.BigInteger, comment="until the first token"),
        sa.Column("total_ms", sa.BigInteger, nullable=False),
        sa.Column("note", Text, comment="why, and by whom, of what is no request"),
        sa.PrimaryKeyConstraint("sequence", name="postings_pkey"),
        sa.UniqueConstraint("id", name="postings_id_unique"),
        comment="append-only: the account, and the record of every request",
    )
    op.create_index("postings_key_id_created_ms", "postings", ["key_id", "created_ms"], unique=False)
    op.create_table(
        "entries",
        sa.Column("budget_id", Text, nullable=False),
        sa.Column("period", sa.BigInteger, nullable=False),
        sa.Column("sequence", Sequence, autoincrement=False, nullable=False),
        sa.Column("amount", sa.BigInteger, nullable=False, comment="in the budget's unit"),
        sa.ForeignKeyConstraint(["budget_id"], ["budgets.id"], name="entries_budget_id_fkey"),
        sa.ForeignKeyConstraint(["sequence"], ["postings.sequence"], name="entries_sequence_fkey"),
        sa.PrimaryKeyConstraint("budget_id", "period", "sequence", name="entries_pkey"),
        comment="what each posting took from, or gave to, which budget",
    )
    op.create_index("entries_sequence", "entries", ["sequence"], unique=False)
    op.create_table(
        "attempts",
        sa.Column("request_id", Text, nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("target", Text, nullable=False),
        sa.Column("model", Text, nullable=False),
        sa.Column("began_ms", sa.BigInteger, nullable=False),
        sa.Column("ended_ms", sa.BigInteger, nullable=False),
        sa.Column("outcome", Text, nullable=False, comment="answered, or how it failed"),
        sa.Column("cost_nano", sa.BigInteger, nullable=False, comment="the operator's, where it did not answer"),
        sa.PrimaryKeyConstraint("request_id", "number", name="attempts_pkey"),
        comment="of requests that were sent more than once, or that no target answered",
    )
    op.create_table(
        "contents",
        sa.Column("request_id", Text, nullable=False),
        sa.Column("request", sa.LargeBinary, nullable=False, comment="the body, as received"),
        sa.Column("reply", sa.LargeBinary, comment="JSON of the whole answer; null: there was none"),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("request_id", name="contents_pkey"),
        comment="what was said, where that was switched on",
    )
    op.create_index("contents_expires_at", "contents", ["expires_at"], unique=False)


def create_reports() -> None:
    op.create_table(
        "usage_hours",
        sa.Column("hour", sa.BigInteger, nullable=False, comment="Unix seconds when it began (UTC)"),
        sa.Column("key_id", Text, nullable=False),
        sa.Column("owner", Text, nullable=False),
        sa.Column("end_user", Text, nullable=False),
        sa.Column("model", Text, nullable=False),
        sa.Column("requests", sa.BigInteger, nullable=False),
        sa.Column("failed", sa.BigInteger, nullable=False, comment="of them, those without a complete answer"),
        sa.Column("prompt_tokens", sa.BigInteger, nullable=False),
        sa.Column("cached_tokens", sa.BigInteger, nullable=False),
        sa.Column("completion_tokens", sa.BigInteger, nullable=False),
        sa.Column("reasoning_tokens", sa.BigInteger, nullable=False),
        sa.Column("cost_nano", sa.BigInteger, nullable=False),
        sa.Column("charge_nano", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("hour", "key_id", "owner", "end_user", "model", name="usage_hours_pkey"),
        comment="postings added up, as far as the revision `usage` says; what was null is empty here",
    )
    op.create_index("usage_hours_key_id_hour", "usage_hours", ["key_id", "hour"], unique=False)
    op.create_table(
        "usage_days",
        sa.Column("day", sa.BigInteger, nullable=False, comment="Unix seconds when it began (UTC)"),
        sa.Column("key_id", Text, nullable=False),
        sa.Column("owner", Text, nullable=False),
        sa.Column("end_user", Text, nullable=False),
        sa.Column("model", Text, nullable=False),
        sa.Column("requests", sa.BigInteger, nullable=False),
        sa.Column("failed", sa.BigInteger, nullable=False, comment="of them, those without a complete answer"),
        sa.Column("prompt_tokens", sa.BigInteger, nullable=False),
        sa.Column("cached_tokens", sa.BigInteger, nullable=False),
        sa.Column("completion_tokens", sa.BigInteger, nullable=False),
        sa.Column("reasoning_tokens", sa.BigInteger, nullable=False),
        sa.Column("cost_nano", sa.BigInteger, nullable=False),
        sa.Column("charge_nano", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("day", "key_id", "owner", "end_user", "model", name="usage_days_pkey"),
        comment="postings added up, as far as the revision `usage` says; what was null is empty here",
    )
    op.create_index("usage_days_key_id_day", "usage_days", ["key_id", "day"], unique=False)
    op.create_table(
        "audit",
        sa.Column("sequence", Sequence, autoincrement=True, nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.Column("actor", Text, nullable=False),
        sa.Column("action", Text, nullable=False),
        sa.Column("subject", Text, nullable=False),
        sa.Column("before", sa.LargeBinary, comment="JSON"),
        sa.Column("after", sa.LargeBinary, comment="JSON"),
        sa.PrimaryKeyConstraint("sequence", name="audit_pkey"),
    )
