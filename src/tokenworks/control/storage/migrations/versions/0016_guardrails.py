"""What guardrails found in an attempt."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    op.add_column("usage", sa.Column("guardrails", sa.Text, nullable=False, server_default=""))


def downgrade() -> None:
    op.drop_column("usage", "guardrails")
