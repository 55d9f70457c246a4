"""Priorities of jobs, and the accelerators that jobs want and workers have.

Revision: 2026_11_26_queues
"""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_26_queues"
down_revision = "2026_11_26_compatible"
branch_labels = None
depends_on = None
compatible_with = "2026_11_26_compatible"


def upgrade() -> None:
    op.add_column("job", sa.Column("priority", sa.Integer(), nullable=True))
    op.add_column("job", sa.Column("accelerator", sa.Text(), nullable=True))
    op.add_column("worker", sa.Column("accelerator", sa.Boolean(), nullable=True))


def downgrade() -> None:
    op.drop_column("worker", "accelerator")
    op.drop_column("job", "accelerator")
    op.drop_column("job", "priority")
