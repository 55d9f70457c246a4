"""Indexes for what read the rows of other projects, and large columns that come last again.

Revision: 2026_11_28_scans
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "2026_11_28_scans"
down_revision = "2026_11_28_waiting"
branch_labels = None
depends_on = None
compatible_with = "2026_11_26_compatible"

LAST = {
    "dataset": ("description", "tags", "columns", "warnings", "options"),
    "job": ("description", "tags", "product", "request"),
    "model_version": (
        "description",
        "tags",
        "columns",
        "context_columns",
        "types",
        "flow",
        "preprocessing",
        "target",
        "held_out",
    ),
}
PARENT, CHILD = "role = 'parent'", "role = 'child'"
INDEXES: tuple[tuple[str, str, list[str], str | None], ...] = (
    ("ix_api_key_project", "api_key", ["project", "position"], None),
    ("ix_idempotency_resource", "idempotency", ["project", "resource_id"], None),
    ("ix_job_parent", "job", ["state", "finished_at"], PARENT),
    ("ix_job_child", "job", ["parent_id", "state", "noticed"], CHILD),
    (
        "ix_job_child_files",
        "job",
        ["parent_id"],
        "parent_id IS NOT NULL AND (product IS NOT NULL OR checkpoint_bytes > 0)",
    ),
    ("ix_model_version_project", "model_version", ["project"], None),
)


def upgrade() -> None:
    op.drop_index("ix_job_parent", table_name="job")
    op.drop_index("ix_job_child", table_name="job")
    if op.get_bind().dialect.name == "sqlite":
        for name in LAST:
            with op.batch_alter_table(
                name, recreate="always", partial_reordering=[large_last(name)]
            ):
                pass
    for name, table, columns, condition in INDEXES:
        op.create_index(name, table, columns, **where(condition))


def large_last(name: str) -> tuple[str, ...]:
    """Give the order of a table's columns on SQLite, which reads through all those before one."""
    names = [column["name"] for column in sa.inspect(op.get_bind()).get_columns(name)]
    return (*(one for one in names if one not in LAST[name]), *LAST[name])


def where(condition: str | None) -> dict[str, Any]:
    if condition is None:
        return {}
    text = sa.text(condition)
    return {"sqlite_where": text, "postgresql_where": text}


def downgrade() -> None:
    for name, table, *_ in INDEXES:
        op.drop_index(name, table_name=table)
    op.create_index("ix_job_parent", "job", ["state"], **where(PARENT))
    op.create_index("ix_job_child", "job", ["parent_id"], **where(CHILD))
