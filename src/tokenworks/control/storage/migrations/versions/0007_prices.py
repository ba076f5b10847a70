"""The price book."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.create_table(
        "prices",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("side", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("organization_id", sa.Text, nullable=False, server_default=""),
        sa.Column("project_id", sa.Text, nullable=False, server_default=""),
        sa.Column("starts", sa.BigInteger, nullable=False),
        sa.Column("ends", sa.BigInteger),
        sa.Column("rates", sa.JSON, nullable=False),
        sa.Column("conditions", sa.JSON, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_prices"),
    )
    op.create_index("ix_prices_subject", "prices", ["side", "subject", "starts"])


def downgrade() -> None:
    op.drop_table("prices")
