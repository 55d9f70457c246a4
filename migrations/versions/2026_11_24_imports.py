"""Imported models: versions that no job made.

Revision: 2026_11_24_imports
"""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_24_imports"
down_revision = "2026_11_24_fourth"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("model_version") as table:
        table.alter_column("job_id", existing_type=sa.Text(), nullable=True)
        table.alter_column("seed", existing_type=sa.BigInteger(), nullable=True)


def downgrade() -> None:
    """Versions that were imported go, with the aliases that point at them."""
    imported = "SELECT model_id, version FROM model_version WHERE job_id IS NULL"
    op.execute(f"DELETE FROM model_alias WHERE (model_id, version) IN ({imported})")
    op.execute("DELETE FROM model_version WHERE job_id IS NULL")
    with op.batch_alter_table("model_version") as table:
        table.alter_column("seed", existing_type=sa.BigInteger(), nullable=False)
        table.alter_column("job_id", existing_type=sa.Text(), nullable=False)
