"""SQLite keeps a hold in one tree instead of two, a table and the index of its key: every request writes and removes
one."""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        with op.batch_alter_table("holds", recreate="always", table_kwargs={"sqlite_with_rowid": False}):
            pass
