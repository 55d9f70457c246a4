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
    product = sa.cast(JOB.c.product, sa.Text())
    if op.get_bind().dialect.name == "postgresql":
        # Its operators of JSON refuse any that has U+0000 somewhere, as levels may.
        # A caller may have named something of a target or a metric so, but not both.
        field = r'"checkpoint_sha256": ?"[0-9a-f]*", ?"checkpoint_bytes": ?([0-9]+)'
        file_bytes = sa.func.substring(product, field)
    else:
        file_bytes = sa.func.json_extract(product, "$.checkpoint_bytes")
    counted = sa.func.length(product) + sa.cast(file_bytes, sa.BigInteger())
    op.execute(sa.update(JOB).where(product != "null").values(product_bytes=counted))


def downgrade() -> None:
    op.drop_column("job", "product_bytes")
