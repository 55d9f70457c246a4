"""Parents and children: jobs whose work is done by other jobs.

Revision: 2026_11_26_children
"""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_26_children"
down_revision = "2026_11_26_webhooks"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("job") as table:
        table.add_column(sa.Column("role", sa.Text(), nullable=True))
        table.add_column(sa.Column("parent_id", sa.Text(), nullable=True))
        table.add_column(sa.Column("place", sa.JSON(none_as_null=True), nullable=True))
        table.add_column(sa.Column("product", sa.JSON(none_as_null=True), nullable=True))
        for name in ("noticed", "covered"):
            table.add_column(sa.Column(name, sa.Boolean(), nullable=True))
        table.create_check_constraint("role", "role IN ('parent', 'child')")
    op.execute("UPDATE job SET noticed = false, covered = false")
    with op.batch_alter_table("job") as table:
        for name in ("noticed", "covered"):
            table.alter_column(name, existing_type=sa.Boolean(), nullable=False)
    for index, column, role in (("parent", "state", "parent"), ("child", "parent_id", "child")):
        where = sa.text(f"role = '{role}'")
        op.create_index(
            f"ix_job_{index}", "job", [column], sqlite_where=where, postgresql_where=where
        )


def downgrade() -> None:
    op.drop_index("ix_job_child", table_name="job")
    op.drop_index("ix_job_parent", table_name="job")
    with op.batch_alter_table("job") as table:
        table.drop_constraint("role", type_="check")
        for name in ("covered", "noticed", "product", "place", "parent_id", "role"):
            table.drop_column(name)
