"""Failures of jobs by their kind, waits between attempts, running time; workers; the store's identity.

Revision: 2026_11_25_attempts
"""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_25_attempts"
down_revision = "2026_11_24_keys"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True).with_variant(sa.String(24), "sqlite")


def upgrade() -> None:
    """Jobs that wait or run go on with no failure counted, and their running time from zero."""
    with op.batch_alter_table("job") as table:
        table.add_column(sa.Column("claimed_at", INSTANT, nullable=True))
        table.add_column(sa.Column("run_seconds", sa.Double(), nullable=True))
        table.add_column(sa.Column("failures", sa.JSON(), nullable=True))
        table.add_column(sa.Column("not_before", INSTANT, nullable=True))
        table.add_column(sa.Column("failed_on", sa.Text(), nullable=True))
        table.add_column(sa.Column("last_step", sa.BigInteger(), nullable=True))
        table.drop_column("attempts_without_progress")
    op.execute("UPDATE job SET run_seconds = 0, failures = '[]', last_step = 0")
    with op.batch_alter_table("job") as table:
        table.alter_column("run_seconds", existing_type=sa.Double(), nullable=False)
        table.alter_column("failures", existing_type=sa.JSON(), nullable=False)
        table.alter_column("last_step", existing_type=sa.BigInteger(), nullable=False)
    op.create_table(
        "worker",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("seen_at", INSTANT, nullable=False),
        sa.Column("unfit", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_worker")),
    )
    op.create_table(
        "store",
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("identity", sa.Text(), nullable=False),
        sa.Column("marked", sa.Boolean(), nullable=False),
        sa.CheckConstraint("position = 1", name=op.f("ck_store_single")),
        sa.PrimaryKeyConstraint("position", name=op.f("pk_store")),
    )


def downgrade() -> None:
    op.drop_table("store")
    op.drop_table("worker")
    with op.batch_alter_table("job") as table:
        table.add_column(sa.Column("attempts_without_progress", sa.Integer(), nullable=True))
        for name in ("last_step", "failed_on", "not_before", "failures", "run_seconds"):
            table.drop_column(name)
        table.drop_column("claimed_at")
    op.execute("UPDATE job SET attempts_without_progress = 0")
    with op.batch_alter_table("job") as table:
        table.alter_column(
            "attempts_without_progress", existing_type=sa.Integer(), nullable=False
        )
