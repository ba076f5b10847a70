"""Budgets that only alert, their thresholds, and where events are sent."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.add_column("limits", sa.Column("alert_only", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("limits", sa.Column("thresholds", sa.JSON))
    op.add_column("limits", sa.Column("utc_offset_minutes", sa.BigInteger, nullable=False, server_default="0"))
    op.create_table(
        "budget_alerts",
        sa.Column("limit_id", sa.Text, nullable=False),
        sa.Column("begins_at", sa.BigInteger, nullable=False),
        sa.Column("threshold", sa.BigInteger, nullable=False),
        sa.Column("at_ns", sa.BigInteger, nullable=False),
        sa.Column("spent", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("limit_id", "begins_at", "threshold", name="pk_budget_alerts"),
    )
    op.create_table(
        "webhook_endpoints",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("organization_id", sa.Text, nullable=False),
        sa.Column("operator", sa.Boolean, nullable=False),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("events", sa.JSON, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_endpoints"),
    )
    op.create_index("ix_webhook_endpoints_organization", "webhook_endpoints", ["organization_id", "created_at"])


def downgrade() -> None:
    op.drop_table("webhook_endpoints")
    op.drop_table("budget_alerts")
    for name in ("utc_offset_minutes", "thresholds", "alert_only"):
        op.drop_column("limits", name)
