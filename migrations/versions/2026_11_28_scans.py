"""Attempts and their failures, types, labels, webhooks, parents and children, workers, quotas.

Revision: 2026_11_28_scans
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "2026_11_28_scans"
down_revision = "2026_11_24_keys"
branch_labels = None
depends_on = None

COUNTER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
INSTANT = sa.DateTime(timezone=True).with_variant(sa.String(24), "sqlite")
JSON = sa.JSON(none_as_null=True)

# Columns that stay empty, and columns that rows of before get a value in.
EMPTY: dict[str, dict[str, Any]] = {
    "api_key": {"label": sa.Text(), "last_used_at": INSTANT},
    "dataset": {"cells": JSON, "options": JSON, "description": sa.Text(), "tags": JSON},
    "job": {
        "claimed_at": INSTANT,
        "not_before": INSTANT,
        "failed_on": sa.Text(),
        "role": sa.Text(),
        "parent_id": sa.Text(),
        "place": JSON,
        "product": JSON,
        "product_bytes": sa.BigInteger(),
        "priority": sa.Integer(),
        "accelerator": sa.Text(),
        "memory_bytes": sa.BigInteger(),
        "description": sa.Text(),
        "tags": JSON,
    },
    "model": {"description": sa.Text(), "tags": JSON},
    "model_version": {"types": sa.JSON(), "description": sa.Text(), "tags": JSON},
}
FILLED: dict[str, dict[str, tuple[Any, str]]] = {
    "dataset": {
        "width": (sa.Integer(), "json_array_length(columns)"),
        "charged_bytes": (sa.BigInteger(), "bytes"),
    },
    "job": {
        "run_seconds": (sa.Double(), "0"),
        "failures": (sa.JSON(), "'[]'"),
        "last_step": (sa.BigInteger(), "0"),
        "metadata_bytes": (sa.BigInteger(), "0"),
        "checkpoint_bytes": (
            sa.BigInteger(),
            "CASE WHEN json_array_length(checkpoints) > 0 THEN 1 ELSE 0 END",
        ),
        "reserved_bytes": (sa.BigInteger(), "0"),
        "charged_bytes": (sa.BigInteger(), "0"),
        "noticed": (sa.Boolean(), "false"),
        "covered": (sa.Boolean(), "false"),
    },
    "model": {"versions_made": (sa.Integer(), "latest_version")},
    "model_version": {"charged_bytes": (sa.BigInteger(), "checkpoint_bytes")},
}
# SQLite reads through all columns before one: those that may be large come last.
LARGE = {
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
DELIVERY = ["webhook_id", "position", "ended_at", "due_at", "bytes"]
INDEXES: tuple[tuple[str, str, list[str], str | None], ...] = (
    ("ix_api_key_project", "api_key", ["project", "position"], None),
    ("ix_dataset_project_sha256", "dataset", ["project", "sha256"], None),
    ("ix_dataset_project_source_sha256", "dataset", ["project", "source_sha256"], None),
    ("ix_idempotency_resource", "idempotency", ["project", "resource_id"], None),
    ("ix_job_finished_at", "job", ["finished_at"], "checkpoint_bytes > 0"),
    ("ix_job_ended", "job", ["finished_at"], "finished_at IS NOT NULL"),
    ("ix_job_parent", "job", ["state", "finished_at"], "role = 'parent'"),
    ("ix_job_child", "job", ["parent_id", "state", "noticed"], "role = 'child'"),
    (
        "ix_job_child_files",
        "job",
        ["parent_id"],
        "parent_id IS NOT NULL AND (product IS NOT NULL OR checkpoint_bytes > 0)",
    ),
    ("ix_model_project_id", "model", ["project", "id"], None),
    ("ix_model_version_project", "model_version", ["project"], None),
    ("ix_alias_change_model_id_position", "alias_change", ["model_id", "position"], None),
    ("ix_tag_kind_position", "tag", ["kind", "position"], None),
    ("ix_webhook_project_position", "webhook", ["project", "position"], None),
    ("ix_webhook_delivery_of_webhook", "webhook_delivery", DELIVERY, None),
    ("ix_webhook_delivery_project_bytes", "webhook_delivery", ["project", "bytes"], None),
    ("ix_webhook_delivery_due", "webhook_delivery", ["due_at"], "ended_at IS NULL"),
    ("ix_webhook_delivery_ended", "webhook_delivery", ["ended_at"], "ended_at IS NOT NULL"),
)


def upgrade() -> None:
    """Jobs that wait or run go on with no failure counted, and their running time from zero."""
    for name, columns in EMPTY.items():
        for column, kind in columns.items():
            op.add_column(name, sa.Column(column, kind, nullable=True))
    for name, filled in FILLED.items():
        for column, (kind, value) in filled.items():
            op.add_column(name, sa.Column(column, kind, nullable=True))
            op.execute(f"UPDATE {name} SET {column} = {value}")
        with op.batch_alter_table(name, partial_reordering=large_last(name)) as table:
            for column, (kind, _) in filled.items():
                table.alter_column(column, existing_type=kind, nullable=False)
            if name == "job":
                table.drop_column("attempts_without_progress")
                table.create_check_constraint("role", "role IN ('parent', 'child')")
    for column in ("history_bytes", "charged_bytes"):
        kind = sa.BigInteger()
        op.add_column("model", sa.Column(column, kind, nullable=False, server_default="0"))
    make_tables()
    for name, on, indexed, condition in INDEXES:
        some = None if condition is None else sa.text(condition)
        op.create_index(name, on, indexed, sqlite_where=some, postgresql_where=some)
    op.execute(
        "INSERT INTO turn (project, taken_at)"
        " SELECT project, max(started_at) FROM job WHERE started_at IS NOT NULL GROUP BY project"
    )


def large_last(name: str) -> list[tuple[str, ...]]:
    names = [column["name"] for column in sa.inspect(op.get_bind()).get_columns(name)]
    large = LARGE.get(name, ())
    return [(*(one for one in names if one not in large), *large)]


def make_tables() -> None:
    op.add_column("alembic_version", sa.Column("compatible_with", sa.String(32), nullable=True))
    op.create_table(
        "worker",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("seen_at", INSTANT, nullable=False),
        sa.Column("unfit", sa.Text(), nullable=True),
        sa.Column("accelerator", sa.Boolean(), nullable=True),
        sa.Column("memory_bytes", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("name", name="pk_worker"),
    )
    op.create_table(
        "store",
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("identity", sa.Text(), nullable=False),
        sa.Column("marked", sa.Boolean(), nullable=False),
        sa.CheckConstraint("position = 1", name=op.f("ck_store_single")),
        sa.PrimaryKeyConstraint("position", name="pk_store"),
    )
    op.create_table(
        "usage",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("project", name="pk_usage"),
    )
    op.create_table(
        "computed",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("day", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("project", "day", name="pk_computed"),
    )
    op.create_table(
        "turn",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("taken_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("project", name="pk_turn"),
    )
    op.create_table(
        "alias_change",
        sa.Column("position", COUNTER, nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("model_id", COUNTER, nullable=False),
        sa.Column("alias", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.ForeignKeyConstraint(["model_id"], ["model.id"], name="fk_alias_change_model_id"),
        sa.PrimaryKeyConstraint("position", name="pk_alias_change"),
    )
    op.create_table(
        "tag",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("position", COUNTER, autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("project", "kind", "name", "value", "position", name="pk_tag"),
    )
    op.create_table(
        "webhook",
        sa.Column("position", COUNTER, nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("events", JSON, nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("disabled_at", INSTANT, nullable=True),
        sa.PrimaryKeyConstraint("position", name="pk_webhook"),
        sa.UniqueConstraint("id", name="uq_webhook_id"),
    )
    op.create_table(
        "webhook_delivery",
        sa.Column("position", COUNTER, nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("webhook_id", sa.Text(), nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("data", JSON, nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("due_at", INSTANT, nullable=False),
        sa.Column("ended_at", INSTANT, nullable=True),
        sa.Column("delivered", sa.Boolean(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["webhook_id"], ["webhook.id"], name="fk_webhook_delivery_webhook_id"
        ),
        sa.PrimaryKeyConstraint("position", name="pk_webhook_delivery"),
        sa.UniqueConstraint("id", name="uq_webhook_delivery_id"),
    )
