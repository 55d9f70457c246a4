"""Labels of models and the history of their aliases count in the quota of their project.

Revision: 2026_11_28_labels
"""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_28_labels"
down_revision = "2026_11_26_memory"
branch_labels = None
depends_on = None
compatible_with = "2026_11_26_compatible"

# At most what the service takes for a change: one letter of a reason takes a byte or more in JSON.
COUNT_CHANGES = """
    UPDATE model SET history_bytes = (
        SELECT COALESCE(SUM(256 + COALESCE(LENGTH(reason) + 2, 4)), 0)
        FROM alias_change WHERE alias_change.model_id = model.id
    )
"""
FORGET_MODELS = """
    UPDATE usage SET bytes = bytes - (
        SELECT COALESCE(SUM(charged_bytes), 0) FROM model WHERE model.project = usage.project
    )
"""


def upgrade() -> None:
    for name in ("history_bytes", "charged_bytes"):
        op.add_column("model", sa.Column(name, sa.BigInteger(), nullable=False, server_default="0"))
    op.execute(COUNT_CHANGES)


def downgrade() -> None:
    op.execute(FORGET_MODELS)
    op.drop_column("model", "charged_bytes")
    op.drop_column("model", "history_bytes")
