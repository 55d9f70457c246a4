"""Descriptions and tags, the index of tags, and datasets by their hash.

Revision: 2026_11_26_labels
"""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_26_labels"
down_revision = "2026_11_26_deletions"
branch_labels = None
depends_on = None

_TABLES = ("dataset", "job", "model", "model_version")


def upgrade() -> None:
    for table in _TABLES:
        op.add_column(table, sa.Column("description", sa.Text(), nullable=True))
        op.add_column(table, sa.Column("tags", sa.JSON(none_as_null=True), nullable=True))
    op.create_index("ix_dataset_project_sha256", "dataset", ["project", "sha256"])
    op.create_index("ix_dataset_project_source_sha256", "dataset", ["project", "source_sha256"])
    op.create_table(
        "tag",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column(
            "position",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=False,
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("project", "kind", "name", "value", "position", name="pk_tag"),
    )
    op.create_index("ix_tag_kind_position", "tag", ["kind", "position"])


def downgrade() -> None:
    op.drop_table("tag")
    op.drop_index("ix_dataset_project_source_sha256", table_name="dataset")
    op.drop_index("ix_dataset_project_sha256", table_name="dataset")
    for table in _TABLES:
        op.drop_column(table, "tags")
        op.drop_column(table, "description")
