"""Where a worker says it is, and which residency policies an attempt was proven to keep."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.add_column("replicas", sa.Column("region", sa.Text, nullable=False, server_default=""))
    op.add_column("replicas", sa.Column("jurisdiction", sa.Text, nullable=False, server_default=""))
    op.add_column("replicas", sa.Column("retention", sa.BigInteger))
    op.add_column("replicas", sa.Column("trains", sa.Boolean(create_constraint=False)))
    op.add_column("usage", sa.Column("residency", sa.Text, nullable=False, server_default=""))


def downgrade() -> None:
    op.drop_column("usage", "residency")
    for name in ("trains", "retention", "jurisdiction", "region"):
        op.drop_column("replicas", name)
