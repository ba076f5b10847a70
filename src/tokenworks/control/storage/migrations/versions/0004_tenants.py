"""Users, invites, service accounts, limits, the audit log, and usage by the hour."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_COUNTS = ("attempts", "input", "cached_input", "cache_write", "output", "reasoning", "charge")


def upgrade() -> None:
    _members()
    _keys()
    _limits()
    _audit_log()
    _usage()


def _members() -> None:
    op.add_column("organizations", sa.Column("archived_at", sa.BigInteger))
    op.add_column("projects", sa.Column("archived_at", sa.BigInteger))
    op.create_index("ix_projects_organization", "projects", ["organization_id", "created_at"])
    op.create_table(
        "users",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("organization_id", sa.Text, nullable=False),
        sa.Column("email", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_users"),
        sa.ForeignKeyConstraint(["organization_id"], ["organizations.id"], name="fk_users_organization_id"),
        sa.UniqueConstraint("organization_id", "email", name="uq_users_email"),
    )
    op.create_table(
        "project_users",
        sa.Column("project_id", sa.Text, nullable=False),
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("project_id", "user_id", name="pk_project_users"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_project_users_project_id"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_project_users_user_id", ondelete="CASCADE"),
    )
    op.create_table(
        "invites",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("organization_id", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("email", sa.Text, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("projects", sa.JSON, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("accepted_at", sa.BigInteger),
        sa.PrimaryKeyConstraint("id", name="pk_invites"),
        sa.ForeignKeyConstraint(["organization_id"], ["organizations.id"], name="fk_invites_organization_id"),
        sa.UniqueConstraint("digest", name="uq_invites_digest"),
    )
    op.create_index("ix_invites_organization", "invites", ["organization_id", "created_at"])
    op.create_table(
        "service_accounts",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("project_id", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("deleted_at", sa.BigInteger),
        sa.PrimaryKeyConstraint("id", name="pk_service_accounts"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_service_accounts_project_id"),
    )
    op.create_index("ix_service_accounts_project", "service_accounts", ["project_id", "created_at"])


def _keys() -> None:
    for column in (
        sa.Column("service_account_id", sa.Text),
        sa.Column("scopes", sa.JSON),
        sa.Column("regions", sa.JSON),
        sa.Column("networks", sa.JSON),
        sa.Column("rotated_from", sa.Text),
    ):
        op.add_column("api_keys", column)
    op.create_index("ix_api_keys_project", "api_keys", ["project_id", "created_at"])
    for column in (
        sa.Column("role", sa.Text, nullable=False, server_default="viewer"),
        sa.Column("user_id", sa.Text),
        sa.Column("expires_at", sa.BigInteger),
        sa.Column("last_used_at", sa.BigInteger),
    ):
        op.add_column("admin_keys", column)
    op.create_index("ix_admin_keys_organization", "admin_keys", ["organization_id", "created_at"])
    # Until now there was only the key of the first start, and it may do everything.
    op.execute("UPDATE admin_keys SET role = 'operator'")


def _limits() -> None:
    op.create_table(
        "limits",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("organization_id", sa.Text, nullable=False),
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False, server_default=""),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.Column("window_seconds", sa.BigInteger, nullable=False),
        sa.Column("period", sa.Text, nullable=False),
        sa.Column("strict", sa.Boolean, nullable=False),
        sa.Column("set_by_operator", sa.Boolean, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_limits"),
        sa.UniqueConstraint("scope", "subject", "model", "kind", "window_seconds", "period", name="uq_limits_name"),
    )
    op.create_index("ix_limits_organization", "limits", ["organization_id", "created_at"])


def _audit_log() -> None:
    op.create_table(
        "audit_log",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("organization_id", sa.Text, nullable=False),
        sa.Column("at_ns", sa.BigInteger, nullable=False),
        sa.Column("actor", sa.JSON, nullable=False),
        sa.Column("actor_id", sa.Text, nullable=False),
        sa.Column("actor_email", sa.Text, nullable=False, server_default=""),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("resource_id", sa.Text, nullable=False),
        sa.Column("project_id", sa.Text, nullable=False, server_default=""),
        sa.Column("before", sa.JSON),
        sa.Column("after", sa.JSON),
        sa.PrimaryKeyConstraint("id", name="pk_audit_log"),
    )
    op.create_index("ix_audit_log_organization", "audit_log", ["organization_id", "at_ns", "id"])
    for statement in IMMUTABLE[op.get_bind().dialect.name]:
        op.execute(statement)


# SQLite's INSERT OR REPLACE deletes without a DELETE trigger, so a known id is refused as well.
IMMUTABLE = {
    "sqlite": (
        "CREATE TRIGGER audit_log_update BEFORE UPDATE ON audit_log "
        "BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END",
        "CREATE TRIGGER audit_log_delete BEFORE DELETE ON audit_log "
        "BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END",
        "CREATE TRIGGER audit_log_replace BEFORE INSERT ON audit_log "
        "WHEN EXISTS (SELECT 1 FROM audit_log WHERE id = NEW.id OR rowid = NEW.rowid) "
        "BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END",
    ),
    "postgresql": (
        "CREATE FUNCTION audit_log_refuse() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'the audit log is append-only'; END $$",
        "CREATE TRIGGER audit_log_immutable BEFORE UPDATE OR DELETE ON audit_log "
        "FOR EACH ROW EXECUTE FUNCTION audit_log_refuse()",
        "CREATE TRIGGER audit_log_whole BEFORE TRUNCATE ON audit_log "
        "FOR EACH STATEMENT EXECUTE FUNCTION audit_log_refuse()",
    ),
}


def _usage() -> None:
    op.add_column("usage", sa.Column("batch", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("usage", sa.Column("tier", sa.Text, nullable=False, server_default=""))
    op.add_column("usage", sa.Column("rolled", sa.Boolean, nullable=False, server_default=sa.false()))
    op.create_index("ix_usage_organization", "usage", ["organization_id", "opened_ns"])
    op.create_index(
        "ix_usage_unrolled",
        "usage",
        ["opened_ns"],
        sqlite_where=sa.text("rolled = 0"),
        postgresql_where=sa.text("NOT rolled"),
    )
    op.create_table(
        "usage_hourly",
        sa.Column("organization_id", sa.Text, nullable=False),
        sa.Column("hour", sa.BigInteger, nullable=False),
        sa.Column("project_id", sa.Text, nullable=False),
        sa.Column("key_id", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("protocol", sa.Text, nullable=False),
        sa.Column("batch", sa.Boolean, nullable=False),
        sa.Column("tier", sa.Text, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in _COUNTS),
        sa.PrimaryKeyConstraint(
            "organization_id",
            "hour",
            "project_id",
            "key_id",
            "model",
            "protocol",
            "batch",
            "tier",
            "outcome",
            name="pk_usage_hourly",
        ),
    )
    op.create_index("ix_usage_hourly_hour", "usage_hourly", ["hour"])


def downgrade() -> None:
    op.drop_table("usage_hourly")
    op.drop_index("ix_usage_unrolled", "usage")
    op.drop_index("ix_usage_organization", "usage")
    for name in ("rolled", "tier", "batch"):
        op.drop_column("usage", name)
    op.drop_table("audit_log")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION audit_log_refuse()")
    op.drop_table("limits")
    op.drop_index("ix_admin_keys_organization", "admin_keys")
    for name in ("role", "user_id", "expires_at", "last_used_at"):
        op.drop_column("admin_keys", name)
    op.drop_index("ix_api_keys_project", "api_keys")
    for name in ("service_account_id", "scopes", "regions", "networks", "rotated_from"):
        op.drop_column("api_keys", name)
    for table in ("service_accounts", "invites", "project_users", "users"):
        op.drop_table(table)
    op.drop_index("ix_projects_organization", "projects")
    op.drop_column("projects", "archived_at")
    op.drop_column("organizations", "archived_at")
