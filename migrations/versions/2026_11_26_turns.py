"""The time at which a project last had a turn, found without reading its jobs.

Revision: 2026_11_26_turns
"""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_26_turns"
down_revision = "2026_11_26_queues"
branch_labels = None
depends_on = None
compatible_with = "2026_11_26_compatible"


def upgrade() -> None:
    started = sa.text("started_at IS NOT NULL")
    op.create_index(
        "ix_job_turn",
        "job",
        ["project", "started_at"],
        sqlite_where=started,
        postgresql_where=started,
    )


def downgrade() -> None:
    op.drop_index("ix_job_turn", table_name="job")
