"""One mechanism for each need: tags in their rows alone, the audit trail in a table.

Revision: 2026_12_01_simple
"""

import sqlalchemy as sa
from alembic import op

revision = "2026_12_01_simple"
down_revision = "2026_11_28_scans"
branch_labels = None
depends_on = None

COUNTER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
INSTANT = sa.DateTime(timezone=True).with_variant(sa.String(24), "sqlite")
DESCRIBED = ("dataset", "job", "model", "model_version")


def upgrade() -> None:
    op.drop_table("tag")
    op.create_table(
        "audit",
        sa.Column("position", COUNTER, nullable=False),
        sa.Column("time", INSTANT, nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Text()),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("resource", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("position", name=op.f("pk_audit")),
    )
    op.create_index(op.f("ix_audit_project_position"), "audit", ["project", "position"])
    for name in DESCRIBED:
        op.execute(f"UPDATE {name} SET tags = '{{}}' WHERE tags IS NULL")
        with op.batch_alter_table(name) as table:
            table.alter_column("tags", existing_type=sa.JSON(), nullable=False)
    with op.batch_alter_table("job") as table:
        table.drop_column("dispatched")
        table.add_column(sa.Column("estimate_s", sa.Double()))
    with op.batch_alter_table("alembic_version") as table:
        table.drop_column("compatible_with")
