"""Counts of the rows that each version scored, by hour.

Revision: 2026_12_02_monitoring
"""

import sqlalchemy as sa
from alembic import op

revision = "2026_12_02_monitoring"
down_revision = "2026_12_01_simple"
branch_labels = None
depends_on = None

COUNTER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
INSTANT = sa.DateTime(timezone=True).with_variant(sa.String(24), "sqlite")


def upgrade() -> None:
    op.create_table(
        "monitored",
        sa.Column("model_id", COUNTER, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("hour", sa.Integer(), nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("counts", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("updated_at", INSTANT, nullable=False),
        sa.Column("announced_at", INSTANT, nullable=True),
        sa.ForeignKeyConstraint(
            ["model_id", "version"],
            ["model_version.model_id", "model_version.version"],
            name=op.f("fk_monitored_model_id_version"),
        ),
        sa.PrimaryKeyConstraint("model_id", "version", "hour", name=op.f("pk_monitored")),
    )
    op.create_index(op.f("ix_monitored_hour"), "monitored", ["hour"])
