"""Deliveries of webhooks count in the quota of their project.

Revision: 2026_11_26_deliveries
"""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_26_deliveries"
down_revision = "2026_11_26_history"
branch_labels = None
depends_on = None
compatible_with = "2026_11_26_compatible"


def upgrade() -> None:
    op.add_column("webhook_delivery", sa.Column("bytes", sa.BigInteger(), nullable=True))
    op.create_index(
        op.f("ix_webhook_delivery_project_bytes"), "webhook_delivery", ["project", "bytes"]
    )


def downgrade() -> None:
    op.drop_index(op.f("ix_webhook_delivery_project_bytes"), table_name="webhook_delivery")
    op.drop_column("webhook_delivery", "bytes")
