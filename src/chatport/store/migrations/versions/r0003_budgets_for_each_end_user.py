"""Budgets for each end user of a key: every one gets a budget of his own, made after the key's."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("budgets", sa.Column("parent", sa.Text(), comment="of one end user's: the budget for each of them"))
    op.create_index("budgets_parent", "budgets", ["parent"])
