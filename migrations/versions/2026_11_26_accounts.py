"""Labels and last uses of keys; rows that were computed, by day.

Revision: 2026_11_26_accounts
"""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_26_accounts"
down_revision = "2026_11_26_children"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("api_key", sa.Column("label", sa.Text(), nullable=True))
    moment = sa.DateTime(timezone=True).with_variant(sa.String(24), "sqlite")
    op.add_column("api_key", sa.Column("last_used_at", moment, nullable=True))
    op.create_table(
        "computed",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("day", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("project", "day", name="pk_computed"),
    )


def downgrade() -> None:
    op.drop_table("computed")
    op.drop_column("api_key", "last_used_at")
    op.drop_column("api_key", "label")
