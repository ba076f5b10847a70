"""The first schema."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    _tenants()
    _keys()
    _fleet()
    _usage()


def _tenants() -> None:
    op.create_table(
        "organizations",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_organizations"),
    )
    op.create_table(
        "projects",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("organization_id", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_projects"),
        sa.ForeignKeyConstraint(["organization_id"], ["organizations.id"], name="fk_projects_organization_id"),
    )


def _keys() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("project_id", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("redacted", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("models", sa.JSON),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger),
        sa.Column("revoked_at", sa.BigInteger),
        sa.Column("last_used_at", sa.BigInteger),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_api_keys_project_id"),
        sa.UniqueConstraint("digest", name="uq_api_keys_digest"),
    )
    op.create_table(
        "admin_keys",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("organization_id", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("redacted", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("revoked_at", sa.BigInteger),
        sa.PrimaryKeyConstraint("id", name="pk_admin_keys"),
        sa.ForeignKeyConstraint(["organization_id"], ["organizations.id"], name="fk_admin_keys_organization_id"),
        sa.UniqueConstraint("digest", name="uq_admin_keys_digest"),
    )


def _fleet() -> None:
    op.create_table(
        "models",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_models"),
    )
    op.create_table(
        "replicas",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("protocols", sa.JSON, nullable=False),
        sa.Column("base_url", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("quirks", sa.JSON, nullable=False),
        sa.Column("context_length", sa.BigInteger),
        sa.Column("max_output", sa.BigInteger),
        sa.Column("capabilities", sa.JSON, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_replicas"),
    )


def _usage() -> None:
    texts = ("key_id", "project_id", "organization_id", "protocol", "model", "upstream", "provider", "upstream_model")
    counts = ("input", "cached_input", "cache_write", "output", "reasoning", "charge")
    op.create_table(
        "usage",
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("attempt", sa.BigInteger, nullable=False),
        sa.Column("opened_ns", sa.BigInteger, nullable=False),
        *(sa.Column(name, sa.Text, nullable=False, server_default="") for name in texts),
        sa.Column("stream", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("settled_ns", sa.BigInteger),
        sa.Column("outcome", sa.Text),
        *(sa.Column(name, sa.BigInteger, nullable=False, server_default="0") for name in counts),
        sa.Column("status", sa.BigInteger),
        sa.Column("error", sa.Text),
        sa.Column("finish_reason", sa.Text),
        sa.Column("first_token_ns", sa.BigInteger),
        sa.Column("duration_ns", sa.BigInteger),
        sa.Column("estimated", sa.Boolean),
        sa.PrimaryKeyConstraint("request_id", "attempt", name="pk_usage"),
    )
    op.create_index("ix_usage_opened_ns", "usage", ["opened_ns"])
    op.create_table(
        "gateway_positions",
        sa.Column("gateway_id", sa.Text, nullable=False),
        sa.Column("next_sequence", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("gateway_id", name="pk_gateway_positions"),
    )


def downgrade() -> None:
    for table in ("gateway_positions", "usage", "replicas", "models", "admin_keys", "api_keys"):
        op.drop_table(table)
    op.drop_table("projects")
    op.drop_table("organizations")
