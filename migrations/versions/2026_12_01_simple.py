"""One mechanism for each need: tags in their rows alone.

Revision: 2026_12_01_simple
"""

import sqlalchemy as sa
from alembic import op

revision = "2026_12_01_simple"
down_revision = "2026_11_28_scans"
branch_labels = None
depends_on = None

DESCRIBED = ("dataset", "job", "model", "model_version")


def upgrade() -> None:
    op.drop_table("tag")
    for name in DESCRIBED:
        op.execute(f"UPDATE {name} SET tags = '{{}}' WHERE tags IS NULL")
        with op.batch_alter_table(name) as table:
            table.alter_column("tags", existing_type=sa.JSON(), nullable=False)
    with op.batch_alter_table("alembic_version") as table:
        table.drop_column("compatible_with")
