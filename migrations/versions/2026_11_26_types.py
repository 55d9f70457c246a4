"""Types of the columns of a model; null in versions from before there were types.

Revision: 2026_11_26_types
"""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_26_types"
down_revision = "2026_11_25_usage"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("model_version", sa.Column("types", sa.JSON(), nullable=True))


def downgrade() -> None:
    op.drop_column("model_version", "types")
