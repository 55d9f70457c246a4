"""Cells of datasets that are no numbers, and the options that the file was read with.

Revision: 2026_11_26_cells
"""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_26_cells"
down_revision = "2026_11_26_types"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("dataset", sa.Column("cells", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("dataset", sa.Column("options", sa.JSON(none_as_null=True), nullable=True))


def downgrade() -> None:
    op.drop_column("dataset", "options")
    op.drop_column("dataset", "cells")
