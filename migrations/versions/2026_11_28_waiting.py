"""Deliveries of a webhook are counted and chosen in their index, without reading their rows.

Revision: 2026_11_28_waiting
"""

from alembic import op

revision = "2026_11_28_waiting"
down_revision = "2026_11_28_products"
branch_labels = None
depends_on = None
compatible_with = "2026_11_26_compatible"

OLD, NEW = "ix_webhook_delivery_webhook_id_position", "ix_webhook_delivery_of_webhook"


def upgrade() -> None:
    columns = ["webhook_id", "position", "ended_at", "due_at", "bytes"]
    op.create_index(NEW, "webhook_delivery", columns)
    op.drop_index(OLD, table_name="webhook_delivery")


def downgrade() -> None:
    op.create_index(OLD, "webhook_delivery", ["webhook_id", "position"])
    op.drop_index(NEW, table_name="webhook_delivery")
