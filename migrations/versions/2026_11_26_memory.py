"""Memory that jobs need and workers have.

Revision: 2026_11_26_memory
"""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_26_memory"
down_revision = "2026_11_26_deliveries"
branch_labels = None
depends_on = None
compatible_with = "2026_11_26_compatible"


def upgrade() -> None:
    op.add_column("job", sa.Column("memory_bytes", sa.BigInteger(), nullable=True))
    op.add_column("worker", sa.Column("memory_bytes", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    op.drop_column("worker", "memory_bytes")
    op.drop_column("job", "memory_bytes")
