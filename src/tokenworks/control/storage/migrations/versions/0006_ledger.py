"""The ledger, invoices, payments."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_COUNTS = (
    "input", "cached_input", "cache_write", "output", "reasoning", "cache_write_1h", "input_audio", "input_image",
    "output_audio", "output_image", "priced_requests", "audio_ms", "images", "gpu_ms", "charge", "cost",
)  # fmt: skip

# Append-only, by their primary keys.
_IMMUTABLE = {
    "ledger_transactions": ("organization_id", "sequence"),
    "ledger_entries": ("organization_id", "sequence", "number"),
    "invoices": ("number",),
    "payment_events": ("id",),
}


def upgrade() -> None:
    op.add_column("usage", sa.Column("posting", sa.BigInteger))
    _ledger()
    _invoices()
    _payments()
    for table, key in _IMMUTABLE.items():
        _refuse_changes(table, key)
    op.drop_table("usage_hourly")
    _usage_hourly("price")
    _take_up_again()


def _take_up_again() -> None:
    """At the next start: for the sums by price, and so that what was used before there was a ledger is charged."""
    op.execute(sa.text("UPDATE usage SET rolled = :no").bindparams(no=False))


def _usage_hourly(*more: str) -> None:
    key = ("organization_id", "hour", "project_id", "key_id", "model", "protocol", "batch", "tier", "outcome", *more)
    types = {"hour": sa.BigInteger, "batch": sa.Boolean}
    op.create_table(
        "usage_hourly",
        *(sa.Column(name, types.get(name, sa.Text), nullable=False) for name in key),
        sa.Column("attempts", sa.BigInteger, nullable=False),
        *(sa.Column(name, sa.BigInteger, nullable=False, server_default="0") for name in _COUNTS),
        sa.PrimaryKeyConstraint(*key, name="pk_usage_hourly"),
    )
    op.create_index("ix_usage_hourly_hour", "usage_hourly", ["hour"])


def _ledger() -> None:
    op.create_table(
        "ledger_books",
        sa.Column("organization_id", sa.Text, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("organization_id", name="pk_ledger_books"),
    )
    op.create_table(
        "ledger_transactions",
        sa.Column("organization_id", sa.Text, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("at_ns", sa.BigInteger, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("key", sa.Text),
        *(sa.Column(name, sa.Text, nullable=False, server_default="") for name in ("memo", "reference", "actor")),
        *(sa.Column(name, sa.Text) for name in ("project_id", "key_id", "model")),
        *(sa.Column(name, sa.BigInteger) for name in ("hour", "posting", "attempts")),
        sa.PrimaryKeyConstraint("organization_id", "sequence", name="pk_ledger_transactions"),
        sa.UniqueConstraint("organization_id", "key", name="uq_ledger_transactions_key"),
    )
    op.create_index("ix_ledger_transactions_posting", "ledger_transactions", ["posting"])
    other = sa.text("posting IS NULL")
    op.create_index(
        "ix_ledger_transactions_other",
        "ledger_transactions",
        ["organization_id", "sequence"],
        sqlite_where=other,
        postgresql_where=other,
    )
    op.create_table(
        "ledger_entries",
        sa.Column("organization_id", sa.Text, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("debit", sa.Text, nullable=False),
        sa.Column("credit", sa.Text, nullable=False),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("organization_id", "sequence", "number", name="pk_ledger_entries"),
        sa.CheckConstraint("amount > 0 AND debit <> credit", name="ck_ledger_entries_moves"),
    )
    op.create_table(
        "ledger_balances",
        sa.Column("organization_id", sa.Text, nullable=False),
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("debits", sa.BigInteger, nullable=False),
        sa.Column("credits", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("organization_id", "account", name="pk_ledger_balances"),
    )


def _invoices() -> None:
    op.create_table(
        "billing_profiles",
        sa.Column("organization_id", sa.Text, nullable=False),
        sa.Column("mode", sa.Text, nullable=False),
        sa.Column("tax_basis_points", sa.BigInteger, nullable=False),
        sa.Column("address", sa.JSON, nullable=False),
        sa.Column("customer", sa.Text),
        sa.PrimaryKeyConstraint("organization_id", name="pk_billing_profiles"),
    )
    op.create_table(
        "invoices",
        sa.Column("number", sa.Text, nullable=False),
        sa.Column("organization_id", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("month", sa.Text, nullable=False),
        sa.Column("period_end", sa.BigInteger, nullable=False),
        sa.Column("corrects", sa.Text),
        sa.Column("issued_at", sa.BigInteger, nullable=False),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in ("charged", "refunded", "total", "due")),
        sa.Column("document", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_invoices"),
    )
    op.create_index("ix_invoices_organization", "invoices", ["organization_id", "issued_at", "number"])
    whole = sa.text("kind = 'invoice'")
    op.create_index(
        "uq_invoices_month",
        "invoices",
        ["organization_id", "month"],
        unique=True,
        sqlite_where=whole,
        postgresql_where=whole,
    )
    op.create_table(
        "document_series",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("last", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_document_series"),
    )
    op.create_table(
        "signing_keys",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("public", sa.LargeBinary, nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_signing_keys"),
    )


def _payments() -> None:
    op.create_table(
        "payments",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("organization_id", sa.Text, nullable=False),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("checkout", sa.Text, nullable=False),
        sa.Column("intent", sa.Text),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("refunded", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("paid_at", sa.BigInteger),
        sa.PrimaryKeyConstraint("id", name="pk_payments"),
        sa.UniqueConstraint("checkout", name="uq_payments_checkout"),
        sa.UniqueConstraint("intent", name="uq_payments_intent"),
    )
    op.create_index("ix_payments_organization", "payments", ["organization_id", "created_at"])
    op.create_table(
        "payment_events",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_payment_events"),
    )
    op.create_table(
        "meter_events",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("organization_id", sa.Text, nullable=False),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("sent_at", sa.BigInteger),
        sa.PrimaryKeyConstraint("id", name="pk_meter_events"),
    )
    op.create_index("ix_meter_events_organization", "meter_events", ["organization_id"])


def _refuse_changes(table: str, key: tuple[str, ...]) -> None:
    """SQLite's INSERT OR REPLACE deletes without a DELETE trigger, so a known key is refused as well."""
    words = f"'{table} is append-only'"
    if op.get_bind().dialect.name == "sqlite":
        known = " AND ".join(f"{name} = NEW.{name}" for name in key)
        exists = f"EXISTS (SELECT 1 FROM {table} WHERE ({known}) OR rowid = NEW.rowid)"  # noqa: S608
        for name, when in (("update", "UPDATE"), ("delete", "DELETE"), ("replace", "INSERT")):
            condition = f"WHEN {exists} " if when == "INSERT" else ""
            op.execute(
                f"CREATE TRIGGER {table}_{name} BEFORE {when} ON {table} {condition}"
                f"BEGIN SELECT RAISE(ABORT, {words}); END"
            )
        return
    op.execute(
        f"CREATE FUNCTION {table}_refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION {words}; END $$"
    )
    op.execute(
        f"CREATE TRIGGER {table}_immutable BEFORE UPDATE OR DELETE ON {table} "
        f"FOR EACH ROW EXECUTE FUNCTION {table}_refuse()"
    )
    op.execute(
        f"CREATE TRIGGER {table}_whole BEFORE TRUNCATE ON {table} FOR EACH STATEMENT EXECUTE FUNCTION {table}_refuse()"
    )


def downgrade() -> None:
    for table in ("meter_events", "payment_events", "payments", "signing_keys", "document_series", "invoices"):
        op.drop_table(table)
    for table in ("billing_profiles", "ledger_balances", "ledger_entries", "ledger_transactions", "ledger_books"):
        op.drop_table(table)
    if op.get_bind().dialect.name == "postgresql":
        for table in _IMMUTABLE:
            op.execute(f"DROP FUNCTION {table}_refuse()")
    op.drop_table("usage_hourly")
    _usage_hourly()
    _take_up_again()
    op.drop_column("usage", "posting")
