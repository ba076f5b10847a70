"""Stored responses and predictions, their stream events, and webhooks that wait to be delivered."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "answers",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("project_id", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("ended", sa.Boolean, nullable=False),
        sa.Column("created_ns", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("leased_until_ns", sa.BigInteger),
        sa.Column("previous_id", sa.Text),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("input", sa.LargeBinary, nullable=False),
        sa.Column("event_count", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("webhook_url", sa.Text),
        sa.Column("webhook_events", sa.JSON),
        sa.PrimaryKeyConstraint("id", name="pk_answers"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_answers_project_id"),
    )
    op.create_index("ix_answers_project", "answers", ["project_id", "kind", "created_ns"])
    op.create_index("ix_answers_leased_until_ns", "answers", ["leased_until_ns"])
    op.create_index("ix_answers_expires_at", "answers", ["expires_at"])
    op.create_table(
        "answer_events",
        sa.Column("answer_id", sa.Text, nullable=False),
        sa.Column("first", sa.BigInteger, nullable=False),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("packed", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("answer_id", "first", name="pk_answer_events"),
        sa.ForeignKeyConstraint(["answer_id"], ["answers.id"], name="fk_answer_events_answer_id", ondelete="CASCADE"),
    )
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("answer_id", sa.Text, nullable=False),
        sa.Column("project_id", sa.Text, nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("event", sa.Text, nullable=False),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("attempts", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("due_ns", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_deliveries"),
    )
    op.create_index("ix_webhook_deliveries_due_ns", "webhook_deliveries", ["due_ns"])
    op.create_index("ix_webhook_deliveries_answer", "webhook_deliveries", ["answer_id", "number"])


def downgrade() -> None:
    for table in ("webhook_deliveries", "answer_events", "answers"):
        op.drop_table(table)
