"""Which attempts were made with a key that the project brought."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    """Those before show it by the version of their price, where anything was used."""
    boolean = sa.Boolean(create_constraint=False)
    op.add_column("usage", sa.Column("byok", boolean, nullable=False, server_default=sa.false()))


def downgrade() -> None:
    op.drop_column("usage", "byok")
