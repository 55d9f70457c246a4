"""Aliases have a history: which version each pointed at from when on, and why.

Revision: 2026_11_26_history
"""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_26_history"
down_revision = "2026_11_26_taken"
branch_labels = None
depends_on = None
compatible_with = "2026_11_26_compatible"

_COUNTER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_INSTANT = sa.DateTime(timezone=True).with_variant(sa.String(24), "sqlite")


def upgrade() -> None:
    op.create_table(
        "alias_change",
        sa.Column("position", _COUNTER, nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("model_id", _COUNTER, nullable=False),
        sa.Column("alias", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("created_at", _INSTANT, nullable=False),
        sa.ForeignKeyConstraint(["model_id"], ["model.id"], name=op.f("fk_alias_change_model_id")),
        sa.PrimaryKeyConstraint("position", name=op.f("pk_alias_change")),
    )
    op.create_index(op.f("ix_alias_change_model_id_position"), "alias_change", ["model_id", "position"])


def downgrade() -> None:
    op.drop_index(op.f("ix_alias_change_model_id_position"), table_name="alias_change")
    op.drop_table("alias_change")
