"""What projects want of the cache of answers."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    op.create_table(
        "caches",
        sa.Column("project_id", sa.Text, nullable=False),
        sa.Column("seconds", sa.BigInteger),
        sa.Column("similarity", sa.Double),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_caches_project_id"),
        sa.PrimaryKeyConstraint("project_id", name="pk_caches"),
    )


def downgrade() -> None:
    op.drop_table("caches")
