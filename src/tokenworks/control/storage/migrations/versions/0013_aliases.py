"""Versions of virtual models, and which of them an attempt came through."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.create_table(
        "alias_versions",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("definition", sa.JSON(none_as_null=True)),
        sa.Column("from_file", sa.Boolean(create_constraint=False), nullable=False),
        sa.Column("author", sa.Text, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("name", "version", name="pk_alias_versions"),
    )
    for statement in IMMUTABLE[op.get_bind().dialect.name]:
        op.execute(statement)
    op.add_column("usage", sa.Column("alias", sa.Text, nullable=False, server_default=""))
    op.add_column("usage", sa.Column("alias_version", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("usage", sa.Column("alias_seed", sa.BigInteger, nullable=False, server_default="0"))
    boolean = sa.Boolean(create_constraint=False)
    op.add_column("usage", sa.Column("shadow", boolean, nullable=False, server_default=sa.false()))


# SQLite's INSERT OR REPLACE deletes without a DELETE trigger, so a known version is refused as well.
IMMUTABLE = {
    "sqlite": (
        "CREATE TRIGGER alias_versions_update BEFORE UPDATE ON alias_versions "
        "BEGIN SELECT RAISE(ABORT, 'versions of aliases are append-only'); END",
        "CREATE TRIGGER alias_versions_delete BEFORE DELETE ON alias_versions "
        "BEGIN SELECT RAISE(ABORT, 'versions of aliases are append-only'); END",
        "CREATE TRIGGER alias_versions_replace BEFORE INSERT ON alias_versions WHEN EXISTS (SELECT 1 FROM "
        "alias_versions WHERE (name = NEW.name AND version = NEW.version) OR rowid = NEW.rowid) "
        "BEGIN SELECT RAISE(ABORT, 'versions of aliases are append-only'); END",
    ),
    "postgresql": (
        "CREATE FUNCTION alias_versions_refuse() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'versions of aliases are append-only'; END $$",
        "CREATE TRIGGER alias_versions_immutable BEFORE UPDATE OR DELETE ON alias_versions "
        "FOR EACH ROW EXECUTE FUNCTION alias_versions_refuse()",
        "CREATE TRIGGER alias_versions_whole BEFORE TRUNCATE ON alias_versions "
        "FOR EACH STATEMENT EXECUTE FUNCTION alias_versions_refuse()",
    ),
}


def downgrade() -> None:
    for name in ("shadow", "alias_seed", "alias_version", "alias"):
        op.drop_column("usage", name)
    op.drop_table("alias_versions")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION alias_versions_refuse()")
