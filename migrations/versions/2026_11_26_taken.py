"""Turns of projects have a table: the last claim of a job, whatever became of the job.

Revision: 2026_11_26_taken
"""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_26_taken"
down_revision = "2026_11_26_turns"
branch_labels = None
depends_on = None
compatible_with = "2026_11_26_compatible"

INSTANT = sa.DateTime(timezone=True).with_variant(sa.String(24), "sqlite")
STARTED = sa.text("started_at IS NOT NULL")


def upgrade() -> None:
    """The last start of a job is where the turns of each project go on from."""
    op.create_table(
        "turn",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("taken_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("project", name=op.f("pk_turn")),
    )
    op.execute(
        "INSERT INTO turn (project, taken_at)"
        " SELECT project, max(started_at) FROM job WHERE started_at IS NOT NULL GROUP BY project"
    )
    op.drop_index("ix_job_turn", table_name="job")


def downgrade() -> None:
    op.create_index(
        "ix_job_turn",
        "job",
        ["project", "started_at"],
        sqlite_where=STARTED,
        postgresql_where=STARTED,
    )
    op.drop_table("turn")
