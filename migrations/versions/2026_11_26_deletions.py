"""Numbers of versions that are never reused, and the order in which jobs ended.

Revision: 2026_11_26_deletions
"""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_26_deletions"
down_revision = "2026_11_26_cells"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("model") as table:
        table.add_column(sa.Column("versions_made", sa.Integer(), nullable=True))
    op.execute("UPDATE model SET versions_made = latest_version")
    with op.batch_alter_table("model") as table:
        table.alter_column("versions_made", existing_type=sa.Integer(), nullable=False)
    ended = sa.text("finished_at IS NOT NULL")
    op.create_index(
        "ix_job_ended", "job", ["finished_at"], sqlite_where=ended, postgresql_where=ended
    )


def downgrade() -> None:
    op.drop_index("ix_job_ended", table_name="job")
    with op.batch_alter_table("model") as table:
        table.drop_column("versions_made")
