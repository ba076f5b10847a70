"""Files, batches and the lines of batches."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "files",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("project_id", sa.Text, nullable=False),
        sa.Column("purpose", sa.Text, nullable=False),
        sa.Column("filename", sa.Text, nullable=False),
        sa.Column("bytes", sa.BigInteger),
        sa.Column("sha256", sa.Text),
        sa.Column("created_ns", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger),
        sa.Column("deleted_at", sa.BigInteger),
        sa.PrimaryKeyConstraint("id", name="pk_files"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_files_project_id"),
    )
    op.create_index("ix_files_project", "files", ["project_id", "created_ns"])
    _batches()
    _lines()


def _batches() -> None:
    times = ("in_progress_at", "finalizing_at", "cancelling_at", "ended_at")
    counts = ("total", "completed", "failed", "input", "cached_input", "cache_write", "output", "reasoning")
    turns = ("leased_ns", "rests_until_ns", "rests")
    op.create_table(
        "batches",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("object", sa.Text, nullable=False),
        sa.Column("project_id", sa.Text, nullable=False),
        sa.Column("key_id", sa.Text, nullable=False),
        sa.Column("endpoint", sa.Text, nullable=False),
        sa.Column("input_file_id", sa.Text, nullable=False),
        sa.Column("metadata", sa.JSON),
        sa.Column("output_seconds", sa.BigInteger),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False, server_default="completed"),
        sa.Column("errors", sa.JSON),
        sa.Column("model", sa.Text),
        sa.Column("created_ns", sa.BigInteger, nullable=False),
        *(sa.Column(name, sa.BigInteger) for name in times),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("output_file_id", sa.Text),
        sa.Column("error_file_id", sa.Text),
        *(sa.Column(name, sa.BigInteger, nullable=False, server_default="0") for name in (*counts, *turns)),
        sa.PrimaryKeyConstraint("id", name="pk_batches"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_batches_project_id"),
        sa.ForeignKeyConstraint(["key_id"], ["api_keys.id"], name="fk_batches_key_id"),
    )
    op.create_index("ix_batches_project", "batches", ["project_id", "created_ns"])
    op.create_index("ix_batches_status", "batches", ["status"])


def _lines() -> None:
    op.create_table(
        "batch_lines",
        sa.Column("batch_id", sa.Text, nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("custom_id", sa.Text, nullable=False),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in ("start", "length", "crc32")),
        sa.Column("state", sa.Text, nullable=False, server_default="waiting"),
        *(sa.Column(name, sa.BigInteger, nullable=False, server_default="0") for name in ("run", "failures")),
        sa.Column("gateway_id", sa.Text),
        sa.Column("leased_until_ns", sa.BigInteger),
        sa.Column("status", sa.BigInteger),
        sa.Column("body", sa.LargeBinary),
        sa.PrimaryKeyConstraint("batch_id", "number", name="pk_batch_lines"),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"], name="fk_batch_lines_batch_id"),
    )
    op.create_index("ix_batch_lines_state", "batch_lines", ["batch_id", "state", "number"])
    op.create_index("ix_batch_lines_gateway", "batch_lines", ["gateway_id"])


def downgrade() -> None:
    for table in ("batch_lines", "batches", "files"):
        op.drop_table(table)
