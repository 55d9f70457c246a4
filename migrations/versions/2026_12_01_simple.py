"""One mechanism for each need: files are summed, tags stand in their rows, the audit trail is a table.

Revision: 2026_12_01_simple
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "2026_12_01_simple"
down_revision = "2026_11_28_scans"
branch_labels = None
depends_on = None

COUNTER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
INSTANT = sa.DateTime(timezone=True).with_variant(sa.String(24), "sqlite")
JSON = sa.JSON(none_as_null=True)
DROPPED_INDEXES = {
    "job": ("ix_job_finished_at", "ix_job_child", "ix_job_child_files"),
    "model_version": ("ix_model_version_project",),
    "webhook_delivery": (
        "ix_webhook_delivery_of_webhook",
        "ix_webhook_delivery_project_bytes",
    ),
}
DROPPED_COLUMNS = {
    "alembic_version": ("compatible_with",),
    "dataset": ("charged_bytes",),
    "job": (
        "claimed_at",
        "failed_on",
        "dispatched",
        "error_code",
        "error_detail",
        "last_epoch",
        "last_step",
        "request_id",
        "traceparent",
        "metadata_bytes",
        "checkpoint_bytes",
        "reserved_bytes",
        "product_bytes",
        "noticed",
        "covered",
        "charged_bytes",
    ),
    "model": ("history_bytes", "charged_bytes"),
    "model_version": ("charged_bytes",),
    "store": ("marked",),
    "webhook_delivery": ("bytes",),
}
NEW: dict[str, dict[str, sa.types.TypeEngine[Any]]] = {
    "dataset": {"stored_bytes": sa.BigInteger()},
    "job": {"stored_bytes": sa.BigInteger(), "error": JSON, "origin": JSON, "estimate_s": sa.Double()},
}
MAY_BE_NULL = {"error", "estimate_s"}
INDEXES: tuple[tuple[str, str, list[str], str | None], ...] = (
    ("ix_dataset_stored", "dataset", ["project", "stored_bytes"], None),
    ("ix_job_stored", "job", ["project", "stored_bytes"], "stored_bytes > 0"),
    ("ix_job_files", "job", ["finished_at"], "stored_bytes > 0"),
    ("ix_job_child", "job", ["parent_id", "state"], "role = 'child'"),
    ("ix_model_version_stored", "model_version", ["project", "checkpoint_bytes"], None),
    (
        "ix_webhook_delivery_of_webhook",
        "webhook_delivery",
        ["webhook_id", "position", "ended_at", "due_at"],
        None,
    ),
)


def upgrade() -> None:
    for name, added in NEW.items():
        for column, kind in added.items():
            op.add_column(name, sa.Column(column, kind, nullable=True))
    fill()
    mark_retyped()
    op.execute("DELETE FROM store WHERE NOT marked")  # a first start that broke off begins anew
    for name, indexes in DROPPED_INDEXES.items():
        for index in indexes:
            op.drop_index(index, table_name=name)
    for name, columns in DROPPED_COLUMNS.items():
        with op.batch_alter_table(name) as table:
            for column in columns:
                table.drop_column(column)
            for column, kind in NEW.get(name, {}).items():
                if column not in MAY_BE_NULL:
                    table.alter_column(column, existing_type=kind, nullable=False)
            if name in ("dataset", "job", "model", "model_version"):
                table.alter_column("tags", existing_type=JSON, nullable=False)
    for name, on, indexed, condition in INDEXES:
        some = None if condition is None else sa.text(condition)
        op.create_index(name, on, indexed, sqlite_where=some, postgresql_where=some)
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
    op.create_table(
        "project",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("turn_at", INSTANT, nullable=True),
        sa.PrimaryKeyConstraint("name", name="pk_project"),
    )
    op.execute("INSERT INTO project (name, turn_at) SELECT project, taken_at FROM turn")
    for name in ("tag", "turn", "usage"):
        op.drop_table(name)


def fill() -> None:
    """Write what was kept in other columns, and of files what their rows say of them."""
    for name in ("dataset", "job", "model", "model_version"):
        op.execute(f"UPDATE {name} SET tags = '{{}}' WHERE tags IS NULL")
    # Products that were counted hold their file and the row that describes them.
    stored = f"checkpoint_bytes + COALESCE({number_of('result', 'bytes')}, 0)"
    op.execute(f"UPDATE job SET stored_bytes = {stored} + COALESCE(product_bytes, 0)")
    op.execute(
        f"UPDATE dataset SET stored_bytes = bytes + COALESCE({number_of('cells', 'bytes')}, 0)"
    )
    sqlite = op.get_bind().dialect.name == "sqlite"
    make = "json_object" if sqlite else "json_build_object"
    origin = "'request_id', request_id, 'traceparent', traceparent"
    op.execute(f"UPDATE job SET origin = {make}({origin})")
    error = "'code', error_code, 'detail', COALESCE(error_detail, '')"
    op.execute(f"UPDATE job SET error = {make}({error}) WHERE error_code IS NOT NULL")


def mark_retyped() -> None:
    """A job whose dataset got other types named the key of the old table, ``datasets/ID/...``, in its place."""
    kind = sa.Boolean()
    op.add_column("job_dataset", sa.Column("retyped", kind, nullable=True))
    op.execute("UPDATE job_dataset SET retyped = (dataset_id LIKE 'datasets/%')")
    length = len("ds_") + 32
    op.execute(
        f"UPDATE job_dataset SET dataset_id = substr(dataset_id, {len('datasets/') + 1}, {length})"
        " WHERE retyped"
    )
    with op.batch_alter_table("job_dataset") as table:
        table.alter_column("retyped", existing_type=kind, nullable=False)


def number_of(column: str, name: str) -> str:
    """Return the expression of a number in an object of JSON."""
    if op.get_bind().dialect.name == "sqlite":
        return f"CAST(json_extract({column}, '$.{name}') AS BIGINT)"
    return f"CAST({column} ->> '{name}' AS BIGINT)"
