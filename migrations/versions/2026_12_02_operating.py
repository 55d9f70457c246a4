"""Limits of single projects, and the time of the last back-up.

Revision: 2026_12_02_operating
"""

import sqlalchemy as sa
from alembic import op

revision = "2026_12_02_operating"
down_revision = "2026_12_02_monitoring"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True).with_variant(sa.String(24), "sqlite")


def upgrade() -> None:
    op.add_column("project", sa.Column("max_bytes", sa.BigInteger(), nullable=True))
    op.add_column("project", sa.Column("max_queued_jobs", sa.Integer(), nullable=True))
    op.add_column("store", sa.Column("backed_up_at", INSTANT, nullable=True))
