"""The database itself refuses to change what a version of a price charges, and to remove one that was in force."""

from alembic import op

revision = "0014"
down_revision = "0013"

_WORDS = "'a price that was in force is never changed'"
_SEALED = ("id", "side", "subject", "organization_id", "project_id", "starts", "rates", "conditions", "source",
           "created_at")  # fmt: skip
# Only an earlier end is a change that a version may have.
_ENDS = "NEW.ends IS NULL OR NEW.ends < NEW.starts OR NEW.ends > OLD.ends"
_NOW = {"sqlite": "CAST(strftime('%s', 'now') AS INTEGER)", "postgresql": "extract(epoch FROM clock_timestamp())"}


def upgrade() -> None:
    dialect = op.get_bind().dialect.name
    for statement in _sqlite() if dialect == "sqlite" else _postgresql():
        op.execute(statement)


def _sqlite() -> list[str]:
    """INSERT OR REPLACE deletes without a DELETE trigger, so a known id is refused as well."""
    changed = " OR ".join(f"NEW.{name} IS NOT OLD.{name}" for name in _SEALED)
    known = "EXISTS (SELECT 1 FROM prices WHERE id = NEW.id OR rowid = NEW.rowid)"
    refused = {
        "update": f"UPDATE ON prices WHEN {changed} OR {_ENDS}",
        "delete": f"DELETE ON prices WHEN OLD.starts <= {_NOW['sqlite']}",
        "replace": f"INSERT ON prices WHEN {known}",
    }
    return [
        f"CREATE TRIGGER prices_{name} BEFORE {when} BEGIN SELECT RAISE(ABORT, {_WORDS}); END"
        for name, when in refused.items()
    ]


def _postgresql() -> list[str]:
    changed = " OR ".join(f"NEW.{name}::text IS DISTINCT FROM OLD.{name}::text" for name in _SEALED)
    refuse = f"RAISE EXCEPTION {_WORDS};"
    return [
        "CREATE FUNCTION prices_refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"IF TG_OP = 'UPDATE' THEN IF {changed} OR {_ENDS} THEN {refuse} END IF; RETURN NEW; END IF; "
        f"IF TG_OP = 'TRUNCATE' OR OLD.starts <= {_NOW['postgresql']} THEN {refuse} END IF; RETURN OLD; END $$",
        "CREATE TRIGGER prices_stand BEFORE UPDATE OR DELETE ON prices FOR EACH ROW EXECUTE FUNCTION prices_refuse()",
        "CREATE TRIGGER prices_whole BEFORE TRUNCATE ON prices FOR EACH STATEMENT EXECUTE FUNCTION prices_refuse()",
    ]


def downgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        for name in ("update", "delete", "replace"):
            op.execute(f"DROP TRIGGER prices_{name}")
        return
    for name in ("stand", "whole"):
        op.execute(f"DROP TRIGGER prices_{name} ON prices")
    op.execute("DROP FUNCTION prices_refuse()")
