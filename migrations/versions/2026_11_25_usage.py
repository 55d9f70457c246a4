"""Storage of a project as one number, and what of it is each row's.

Revision: 2026_11_25_usage
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "2026_11_25_usage"
down_revision = "2026_11_25_attempts"
branch_labels = None
depends_on = None

NEW: dict[str, dict[str, Any]] = {
    "dataset": {"width": sa.Integer(), "charged_bytes": sa.BigInteger()},
    "job": dict.fromkeys(
        ("metadata_bytes", "checkpoint_bytes", "reserved_bytes", "charged_bytes"), sa.BigInteger()
    ),
    "model_version": {"charged_bytes": sa.BigInteger()},
}
LARGE = {
    "dataset": ("columns", "warnings"),
    "job": ("request",),
    "model_version": (
        "columns",
        "context_columns",
        "flow",
        "preprocessing",
        "target",
        "held_out",
    ),
}
ROW, EVENT = 1024, 256


def size(column: str) -> str:
    return f"COALESCE(LENGTH(CAST({column} AS TEXT)), 0)"


def upgrade() -> None:
    op.create_table(
        "usage",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("project", name=op.f("pk_usage")),
    )
    for name, columns in NEW.items():
        with op.batch_alter_table(name) as table:
            for column, kind in columns.items():
                table.add_column(sa.Column(column, kind, nullable=True))
    count()
    for name, columns in NEW.items():
        with op.batch_alter_table(name, partial_reordering=[large_last(name)]) as table:
            for column, kind in columns.items():
                table.alter_column(column, existing_type=kind, nullable=False)
    op.create_index(op.f("ix_model_project_id"), "model", ["project", "id"])
    some = sa.text("checkpoint_bytes > 0")
    op.create_index(
        op.f("ix_job_finished_at"),
        "job",
        ["finished_at"],
        sqlite_where=some,
        postgresql_where=some,
    )


def large_last(name: str) -> tuple[str, ...]:
    """Give the order of a table's columns on SQLite, which reads through all those before one."""
    names = [column["name"] for column in sa.inspect(op.get_bind()).get_columns(name)]
    return (*(one for one in names if one not in LARGE[name]), *LARGE[name])


def count() -> None:
    """Count what there is. Checkpoints count one byte: their sizes were not kept."""
    op.execute(
        "UPDATE dataset SET width = json_array_length(columns),"
        f" charged_bytes = bytes + {ROW} + {size('columns')} + {size('warnings')}"
    )
    op.execute(
        f"UPDATE job SET metadata_bytes = {size('request')} + (SELECT"
        f" COALESCE(SUM({EVENT} + {size('data')}), 0) FROM job_event WHERE job_id = job.id),"
        " checkpoint_bytes = CASE WHEN json_array_length(checkpoints) > 0 THEN 1 ELSE 0 END,"
        " reserved_bytes = 0"
    )
    result_bytes = (
        "COALESCE(CAST(json_extract(result, '$.bytes') AS BIGINT), 0)"
        if op.get_bind().dialect.name == "sqlite"
        else "COALESCE(CAST(result ->> 'bytes' AS BIGINT), 0)"
    )
    op.execute(
        f"UPDATE job SET charged_bytes = {ROW} + metadata_bytes + checkpoint_bytes + {result_bytes}"
    )
    described = " + ".join(
        size(column)
        for column in ("columns", "context_columns", "flow", "metrics", "target", "held_out")
    )
    op.execute(
        f"UPDATE model_version SET charged_bytes = checkpoint_bytes + {ROW} + {described}"
    )
    charged = " UNION ALL ".join(
        f"SELECT project, charged_bytes FROM {name}" for name in NEW
    )
    op.execute(
        "INSERT INTO usage (project, bytes)"
        f" SELECT project, SUM(charged_bytes) FROM ({charged}) AS charged GROUP BY project"
    )


def downgrade() -> None:
    op.drop_index(op.f("ix_job_finished_at"), table_name="job")
    op.drop_index(op.f("ix_model_project_id"), table_name="model")
    for name, columns in NEW.items():
        with op.batch_alter_table(name) as table:
            for column in columns:
                table.drop_column(column)
    op.drop_table("usage")
