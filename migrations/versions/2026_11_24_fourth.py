"""Calibrated scores: held-out log densities of models. Bulk jobs: the files that they make.

Revision: 2026_11_24_fourth
"""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_24_fourth"
down_revision = "2026_11_24_third"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("model_version") as table:
        table.add_column(sa.Column("held_out", sa.JSON(), nullable=True))
    with op.batch_alter_table("job") as table:
        table.add_column(sa.Column("result", sa.JSON(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("job") as table:
        table.drop_column("result")
    with op.batch_alter_table("model_version") as table:
        table.drop_column("held_out")
