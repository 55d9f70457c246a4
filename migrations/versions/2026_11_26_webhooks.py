"""Webhooks and their deliveries.

Revision: 2026_11_26_webhooks
"""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_26_webhooks"
down_revision = "2026_11_26_labels"
branch_labels = None
depends_on = None

_COUNTER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _instant(name: str, *, nullable: bool = False) -> sa.Column[object]:
    kind = sa.DateTime(timezone=True).with_variant(sa.String(24), "sqlite")
    return sa.Column(name, kind, nullable=nullable)


def upgrade() -> None:
    op.create_table(
        "webhook",
        sa.Column("position", _COUNTER, nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("events", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("secret", sa.Text(), nullable=False),
        _instant("created_at"),
        _instant("disabled_at", nullable=True),
        sa.PrimaryKeyConstraint("position", name="pk_webhook"),
        sa.UniqueConstraint("id", name="uq_webhook_id"),
    )
    op.create_index("ix_webhook_project_position", "webhook", ["project", "position"])
    op.create_table(
        "webhook_delivery",
        sa.Column("position", _COUNTER, nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("webhook_id", sa.Text(), nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("data", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        _instant("due_at"),
        _instant("ended_at", nullable=True),
        sa.Column("delivered", sa.Boolean(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        _instant("created_at"),
        sa.ForeignKeyConstraint(
            ["webhook_id"], ["webhook.id"], name="fk_webhook_delivery_webhook_id"
        ),
        sa.PrimaryKeyConstraint("position", name="pk_webhook_delivery"),
        sa.UniqueConstraint("id", name="uq_webhook_delivery_id"),
    )
    op.create_index(
        "ix_webhook_delivery_webhook_id_position", "webhook_delivery", ["webhook_id", "position"]
    )
    for name, condition in (("due", "ended_at IS NULL"), ("ended", "ended_at IS NOT NULL")):
        op.create_index(
            f"ix_webhook_delivery_{name}",
            "webhook_delivery",
            [f"{name}_at"],
            sqlite_where=sa.text(condition),
            postgresql_where=sa.text(condition),
        )


def downgrade() -> None:
    op.drop_table("webhook_delivery")
    op.drop_table("webhook")
