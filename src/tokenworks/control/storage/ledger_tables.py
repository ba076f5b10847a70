"""Tables of the ledger, invoices and payments. Money is in nano-dollars.

`ledger_transactions`, `ledger_entries`, `invoices` and `payment_events` are append-only: triggers refuse everything
but an insert (migrations/versions/0006_ledger.py).
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    Index,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from tokenworks.control.storage.metadata import metadata

# One row per organization: the number of its last transaction. Whoever posts holds this row until the commit, so
# numbers have no gaps and follow the order of commits.
ledger_books = Table(
    "ledger_books",
    metadata,
    Column("organization_id", Text, primary_key=True),
    Column("sequence", BigInteger, nullable=False),
)

ledger_transactions = Table(
    "ledger_transactions",
    metadata,
    Column("organization_id", Text, primary_key=True),
    Column("sequence", BigInteger, primary_key=True),
    Column("at_ns", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("key", Text),  # for idempotency; NULL for charges, which are idempotent by their attempts
    Column("memo", Text, nullable=False, server_default=""),
    Column("reference", Text, nullable=False, server_default=""),  # a request, an invoice or a payment
    Column("actor", Text, nullable=False, server_default=""),
    # What was sold, for charges and refunds.
    Column("project_id", Text),
    Column("key_id", Text),
    Column("model", Text),
    Column("hour", BigInteger),  # Unix seconds of its beginning
    Column("posting", BigInteger),  # usage.posting of the attempts charged; NULL for everything but charges
    Column("attempts", BigInteger),
    UniqueConstraint("organization_id", "key", name="uq_ledger_transactions_key"),
    Index("ix_ledger_transactions_posting", "posting"),
    # All that is no charge: few beside the charges.
    Index(
        "ix_ledger_transactions_other",
        "organization_id",
        "sequence",
        sqlite_where=text("posting IS NULL"),
        postgresql_where=text("posting IS NULL"),
    ),
)

# `amount` goes from the account `credit` to the account `debit`, so a transaction sums to zero by its form.
ledger_entries = Table(
    "ledger_entries",
    metadata,
    Column("organization_id", Text, primary_key=True),
    Column("sequence", BigInteger, primary_key=True),
    Column("number", BigInteger, primary_key=True),
    Column("debit", Text, nullable=False),
    Column("credit", Text, nullable=False),
    Column("amount", BigInteger, nullable=False),
    CheckConstraint("amount > 0 AND debit <> credit", name="ck_ledger_entries_moves"),
)

# Sums of ledger_entries, written with them; `storage/ledger.py` can make them anew and compare.
ledger_balances = Table(
    "ledger_balances",
    metadata,
    Column("organization_id", Text, primary_key=True),
    Column("account", Text, primary_key=True),
    Column("debits", BigInteger, nullable=False),
    Column("credits", BigInteger, nullable=False),
)

billing_profiles = Table(
    "billing_profiles",
    metadata,
    Column("organization_id", Text, primary_key=True),
    Column("mode", Text, nullable=False),  # postpaid | prepaid
    Column("tax_basis_points", BigInteger, nullable=False),
    Column("address", JSON, nullable=False),  # what an invoice shows of the customer
    Column("customer", Text),  # its id at the payment provider
)

# A document, once issued, is what it is.
invoices = Table(
    "invoices",
    metadata,
    Column("number", Text, primary_key=True),
    Column("organization_id", Text, nullable=False),
    Column("kind", Text, nullable=False),  # invoice | credit_note
    Column("month", Text, nullable=False),  # 2026-11
    Column("period_end", BigInteger, nullable=False),  # Unix seconds, exclusive
    Column("corrects", Text),  # the invoice that a credit note is about
    Column("issued_at", BigInteger, nullable=False),
    Column("charged", BigInteger, nullable=False),  # usage charges on it
    Column("refunded", BigInteger, nullable=False),  # and refunds
    Column("total", BigInteger, nullable=False),
    Column("due", BigInteger, nullable=False),  # what the balance did not pay
    Column("document", JSON, nullable=False),
    Index("ix_invoices_organization", "organization_id", "issued_at", "number"),
    Index(
        "uq_invoices_month",
        "organization_id",
        "month",
        unique=True,
        sqlite_where=text("kind = 'invoice'"),
        postgresql_where=text("kind = 'invoice'"),
    ),
)

# The last number of each series of documents; the row is held until the document is committed, so there are no gaps.
document_series = Table(
    "document_series",
    metadata,
    Column("name", Text, primary_key=True),
    Column("last", BigInteger, nullable=False),
)

signing_keys = Table(
    "signing_keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("public", LargeBinary, nullable=False),
    Column("sealed", LargeBinary, nullable=False),  # the private key, under the cluster key
    Column("created_at", BigInteger, nullable=False),
)

# A top-up through a payment provider, from its checkout to what was paid back of it.
payments = Table(
    "payments",
    metadata,
    Column("id", Text, primary_key=True),
    Column("organization_id", Text, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("status", Text, nullable=False),  # open | paid | expired | failed
    Column("checkout", Text, nullable=False, unique=True),  # the provider's id of the checkout
    Column("intent", Text, unique=True),  # the provider's id of the payment, once there is one
    Column("url", Text, nullable=False),
    Column("refunded", BigInteger, nullable=False, server_default="0"),
    Column("created_at", BigInteger, nullable=False),
    Column("paid_at", BigInteger),
    Index("ix_payments_organization", "organization_id", "created_at"),
)

# Events of the payment provider that were acted upon: each once.
payment_events = Table(
    "payment_events",
    metadata,
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
)

# Usage told to the payment provider: written before it is sent, and sent again under its id until it is taken.
meter_events = Table(
    "meter_events",
    metadata,
    Column("id", Text, primary_key=True),
    Column("organization_id", Text, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("sent_at", BigInteger),
    Index("ix_meter_events_organization", "organization_id"),
)
