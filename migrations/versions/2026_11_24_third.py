"""Models of variational inference: the target that each was fitted to.

Revision: 2026_11_24_third
"""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_24_third"
down_revision = "2026_11_24_second"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("model_version") as table:
        table.add_column(sa.Column("target", sa.JSON(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("model_version") as table:
        table.drop_column("target")
