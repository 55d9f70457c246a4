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


def upgrade() -> None:
    for name in ("history_bytes", "charged_bytes"):
        op.add_column("model", sa.Column(name, sa.BigInteger(), nullable=False, server_default="0"))


def downgrade() -> None:
    op.drop_column("model", "charged_bytes")
    op.drop_column("model", "history_bytes")
