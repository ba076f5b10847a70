"""Webhook endpoints of projects, whose secret can be changed."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    for column in (
        sa.Column("project_id", sa.Text),
        sa.Column("updated_at", sa.BigInteger),
        sa.Column("secret_number", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("both_until", sa.BigInteger),
    ):
        op.add_column("webhook_endpoints", column)


def downgrade() -> None:
    for name in ("project_id", "updated_at", "secret_number", "both_until"):
        op.drop_column("webhook_endpoints", name)
