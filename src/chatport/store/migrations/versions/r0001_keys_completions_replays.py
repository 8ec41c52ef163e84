"""Keys, stored completions, replies kept for idempotency keys."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

Text = sa.Text()
Sequence = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    create_keys()
    create_completions()
    create_replays()


def create_keys() -> None:
    op.create_table(
        "keys",
        sa.Column("id", Text, nullable=False),
        sa.Column("name", Text, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False, comment="SHA-256 of the key; the key is not kept"),
        sa.Column("prefix", Text, nullable=False, comment="the key's visible beginning"),
        sa.Column("admin", sa.Boolean, nullable=False),
        sa.Column("models", sa.LargeBinary, comment="JSON array of the names it may use; null: all"),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger),
        sa.Column("revoked_at", sa.BigInteger),
        sa.PrimaryKeyConstraint("id", name="keys_pkey"),
        sa.UniqueConstraint("digest", name="keys_digest_unique"),
    )
    revisions = op.create_table(
        "revisions",
        sa.Column("topic", Text, nullable=False),
        sa.Column(
            "revision", sa.BigInteger, nullable=False, comment="counts the changes, in the transaction that makes them"
        ),
        sa.PrimaryKeyConstraint("topic", name="revisions_pkey"),
    )
    op.bulk_insert(revisions, [{"topic": "keys", "revision": 0}])


def create_completions() -> None:
    op.create_table(
        "completions",
        sa.Column("sequence", Sequence, nullable=False, autoincrement=True, comment="breaks ties of created_at"),
        sa.Column("id", Text, nullable=False),
        sa.Column("key_id", Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("model", Text, nullable=False, comment="the name that answered"),
        sa.Column("requested_model", Text, nullable=False, comment="the name that was asked for"),
        sa.Column("body", sa.LargeBinary, nullable=False, comment="JSON of the completion, without metadata"),
        sa.Column("messages", sa.LargeBinary, nullable=False, comment="JSON array of the input messages"),
        sa.Column("metadata", sa.LargeBinary, comment="JSON object, or null"),
        sa.PrimaryKeyConstraint("sequence", name="completions_pkey"),
        sa.ForeignKeyConstraint(["key_id"], ["keys.id"], name="completions_key_id_fkey"),
        sa.UniqueConstraint("id", name="completions_id_unique"),
    )
    op.create_index(
        "completions_key_id_created_at_sequence", "completions", ["key_id", "created_at", "sequence"], unique=False
    )
    op.create_table(
        "completion_tags",
        sa.Column("sequence", Sequence, autoincrement=False, nullable=False),
        sa.Column("name", sa.LargeBinary, nullable=False),
        sa.Column("value", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("sequence", "name", name="completion_tags_pkey"),
        sa.ForeignKeyConstraint(
            ["sequence"], ["completions.sequence"], name="completion_tags_sequence_fkey", ondelete="CASCADE"
        ),
        comment="metadata again, a row a pair, to filter by",
    )


def create_replays() -> None:
    op.create_table(
        "replays",
        sa.Column("key_id", Text, nullable=False),
        sa.Column("name_digest", sa.LargeBinary, nullable=False, comment="SHA-256 of the Idempotency-Key"),
        sa.Column("request_digest", sa.LargeBinary, nullable=False, comment="SHA-256 of the request's body"),
        sa.Column("content_type", Text, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("key_id", "name_digest", name="replays_pkey"),
        sa.ForeignKeyConstraint(["key_id"], ["keys.id"], name="replays_key_id_fkey"),
    )
    op.create_index("replays_created_at", "replays", ["created_at"], unique=False)
