"""The oldest code that may run on the database, beside its revision.

Revision: 2026_11_26_compatible
"""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_26_compatible"
down_revision = "2026_11_26_accounts"
branch_labels = None
depends_on = None
compatible_with = "2026_11_26_compatible"


def upgrade() -> None:
    op.add_column("alembic_version", sa.Column("compatible_with", sa.String(32), nullable=True))


def downgrade() -> None:
    op.drop_column("alembic_version", "compatible_with")
