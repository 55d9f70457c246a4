"""The least likely rows of tables are kept with versions and scoring jobs, and what people found about them.

Revision: 2026_12_02_unusual
"""

import sqlalchemy as sa
from alembic import op

revision = "2026_12_02_unusual"
down_revision = "2026_12_02_operating"
branch_labels = None
depends_on = None

COUNTER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
INSTANT = sa.DateTime(timezone=True).with_variant(sa.String(24), "sqlite")
JSON = sa.JSON(none_as_null=True)


def upgrade() -> None:
    for table in ("job", "model_version"):
        op.add_column(table, sa.Column("unusual", JSON, nullable=True))
    op.create_table(
        "review",
        sa.Column("model_id", COUNTER, nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("review", sa.Text(), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.CheckConstraint(
            "review IN ('confirmed', 'not_unusual')", name=op.f("ck_review_review")
        ),
        sa.ForeignKeyConstraint(
            ["model_id"], ["model.id"], name=op.f("fk_review_model_id_model")
        ),
        sa.PrimaryKeyConstraint("model_id", "digest", name=op.f("pk_review")),
    )
