"""API keys. Idempotency records: they stand for datasets, too.

Revision: 2026_11_24_keys
"""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_24_keys"
down_revision = "2026_11_24_imports"
branch_labels = None
depends_on = None

COUNTER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
INSTANT = sa.DateTime(timezone=True).with_variant(sa.String(24), "sqlite")


def upgrade() -> None:
    op.create_table(
        "api_key",
        sa.Column("position", COUNTER, nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("secret_sha256", sa.Text(), nullable=False),
        sa.Column("rate", sa.Double(), nullable=True),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("expires_at", INSTANT, nullable=True),
        sa.Column("revoked_at", INSTANT, nullable=True),
        sa.CheckConstraint("scope IN ('read', 'write', 'admin')", name=op.f("ck_api_key_scope")),
        sa.PrimaryKeyConstraint("position", name=op.f("pk_api_key")),
        sa.UniqueConstraint("id", name=op.f("uq_api_key_id")),
    )
    with op.batch_alter_table("idempotency") as table:
        table.alter_column("job_id", new_column_name="resource_id")


def downgrade() -> None:
    with op.batch_alter_table("idempotency") as table:
        table.alter_column("resource_id", new_column_name="job_id")
    op.drop_table("api_key")
