"""Bytes of what children have made, which are counted without reading it.

Revision: 2026_11_28_products
"""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_28_products"
down_revision = "2026_11_28_labels"
branch_labels = None
depends_on = None
compatible_with = "2026_11_26_compatible"

JOB = sa.table(
    "job",
    sa.column("position", sa.BigInteger()),
    sa.column("product", sa.JSON()),
    sa.column("product_bytes", sa.BigInteger()),
)


def upgrade() -> None:
    op.add_column("job", sa.Column("product_bytes", sa.BigInteger(), nullable=True))
    size = sa.func.length(sa.cast(JOB.c.product, sa.Text()))
    # Through text: an integer of JSON has 32 bits on PostgreSQL.
    file_bytes = sa.cast(JOB.c.product["checkpoint_bytes"].as_string(), sa.BigInteger())
    made = sa.cast(JOB.c.product, sa.Text()) != "null"
    op.execute(sa.update(JOB).where(made).values(product_bytes=size + file_bytes))


def downgrade() -> None:
    op.drop_column("job", "product_bytes")
