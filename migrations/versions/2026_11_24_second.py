"""Conditional models: the columns of their context.

Revision: 2026_11_24_second
"""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_24_second"
down_revision = "2026_11_24_first"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("model_version") as table:
        table.add_column(sa.Column("context_columns", sa.JSON(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("model_version") as table:
        table.drop_column("context_columns")
