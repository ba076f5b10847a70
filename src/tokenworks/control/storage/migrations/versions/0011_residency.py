"""Residency policies of projects and organizations."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.create_table(
        "residency",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("organization_id", sa.Text, nullable=False),
        sa.Column("regions", sa.JSON(none_as_null=True)),
        sa.Column("jurisdictions", sa.JSON(none_as_null=True)),
        sa.Column("retention", sa.BigInteger),
        sa.Column("no_training", sa.Boolean, nullable=False),
        sa.ForeignKeyConstraint(["organization_id"], ["organizations.id"], name="fk_residency_organization_id"),
        sa.PrimaryKeyConstraint("id", name="pk_residency"),
    )


def downgrade() -> None:
    op.drop_table("residency")
