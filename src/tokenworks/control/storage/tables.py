"""The schema, for SQLite and PostgreSQL alike.

Money is in nano-dollars, `*_at` in Unix seconds, `*_ns` in nanoseconds, all BIGINT. Changing a table takes a
migration in `migrations/versions`; a test compares the two.
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)

from tokenworks.control.storage import caches, ledger_tables  # noqa: F401 -- on the same metadata
from tokenworks.control.storage.metadata import metadata as metadata
from tokenworks.core.usage import KINDS

organizations = Table(
    "organizations",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("archived_at", BigInteger),
)

projects = Table(
    "projects",
    metadata,
    Column("id", Text, primary_key=True),
    Column("organization_id", Text, ForeignKey("organizations.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("archived_at", BigInteger),
    Index("ix_projects_organization", "organization_id", "created_at"),
)

users = Table(
    "users",
    metadata,
    Column("id", Text, primary_key=True),
    Column("organization_id", Text, ForeignKey("organizations.id"), nullable=False),
    Column("email", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    UniqueConstraint("organization_id", "email", name="uq_users_email"),
)

project_users = Table(
    "project_users",
    metadata,
    Column("project_id", Text, ForeignKey("projects.id"), primary_key=True),
    Column("user_id", Text, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    Column("role", Text, nullable=False),  # owner | member
    Column("created_at", BigInteger, nullable=False),
)

invites = Table(
    "invites",
    metadata,
    Column("id", Text, primary_key=True),
    Column("organization_id", Text, ForeignKey("organizations.id"), nullable=False),
    Column("digest", Text, nullable=False, unique=True),
    Column("email", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("projects", JSON, nullable=False),  # [{"id", "role"}]
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("accepted_at", BigInteger),
    Index("ix_invites_organization", "organization_id", "created_at"),
)

service_accounts = Table(
    "service_accounts",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", Text, ForeignKey("projects.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("role", Text, nullable=False),  # owner | member
    Column("created_at", BigInteger, nullable=False),
    Column("deleted_at", BigInteger),
    Index("ix_service_accounts_project", "project_id", "created_at"),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", Text, ForeignKey("projects.id"), nullable=False),
    Column("digest", Text, nullable=False, unique=True),
    Column("redacted", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("models", JSON(none_as_null=True)),  # NULL: every model
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("revoked_at", BigInteger),
    Column("last_used_at", BigInteger),
    Column("service_account_id", Text),  # whose it is; NULL: the project's own
    Column("scopes", JSON(none_as_null=True)),  # NULL: everything
    Column("regions", JSON(none_as_null=True)),  # NULL: everywhere
    Column("networks", JSON(none_as_null=True)),  # NULL: from everywhere
    Column("rotated_from", Text),  # the key that this one replaces
    Index("ix_api_keys_project", "project_id", "created_at"),
)

# Apart from api_keys, so that no mistake in a filter can ever hand an admin key to the data plane.
admin_keys = Table(
    "admin_keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("organization_id", Text, ForeignKey("organizations.id"), nullable=False),
    Column("digest", Text, nullable=False, unique=True),
    Column("redacted", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("revoked_at", BigInteger),
    Column("role", Text, nullable=False, server_default="viewer"),
    Column("user_id", Text),  # whose it is; NULL: the organization's own
    Column("expires_at", BigInteger),
    Column("last_used_at", BigInteger),
    Index("ix_admin_keys_organization", "organization_id", "created_at"),
)

# What gateways enforce; a row is one `LimitRecord`, and its name is unique.
limits = Table(
    "limits",
    metadata,
    Column("id", Text, primary_key=True),
    Column("organization_id", Text, nullable=False),  # whose limit it is; '' for one that counts everybody's requests
    Column("scope", Text, nullable=False),  # key | project | organization | model | provider
    Column("subject", Text, nullable=False),  # what the scope names: an id, or a model's name
    Column("model", Text, nullable=False, server_default=""),  # '': every model
    Column("kind", Text, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("window_seconds", BigInteger, nullable=False),
    Column("period", Text, nullable=False),
    Column("strict", Boolean(create_constraint=False), nullable=False),
    Column("set_by_operator", Boolean(create_constraint=False), nullable=False),  # then nobody else may change it
    Column("alert_only", Boolean(create_constraint=False), nullable=False, server_default=false()),  # not for gateways
    Column("thresholds", JSON(none_as_null=True)),  # percent of a budget at which webhooks fire
    Column("utc_offset_minutes", BigInteger, nullable=False, server_default="0"),  # of a period's borders
    Column("created_at", BigInteger, nullable=False),
    UniqueConstraint("scope", "subject", "model", "kind", "window_seconds", "period", name="uq_limits_name"),
    Index("ix_limits_organization", "organization_id", "created_at"),
)

# Thresholds of budgets that were passed, once for each period.
budget_alerts = Table(
    "budget_alerts",
    metadata,
    Column("limit_id", Text, primary_key=True),
    Column("begins_at", BigInteger, primary_key=True),  # of the period; 0: a total
    Column("threshold", BigInteger, primary_key=True),
    Column("at_ns", BigInteger, nullable=False),
    Column("spent", BigInteger, nullable=False),
)

# Where events of an organization are sent. The secret is derived from the cluster key and the id.
webhook_endpoints = Table(
    "webhook_endpoints",
    metadata,
    Column("id", Text, primary_key=True),
    Column("organization_id", Text, nullable=False),
    Column("operator", Boolean(create_constraint=False), nullable=False),  # then also of models and providers
    Column("url", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("events", JSON, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("project_id", Text),  # NULL: the organization's own
    Column("updated_at", BigInteger),
    Column("secret_number", BigInteger, nullable=False, server_default="0"),
    Column("both_until", BigInteger),  # the secret before the current one signs too
    Index("ix_webhook_endpoints_organization", "organization_id", "created_at"),
)

# Append-only: triggers refuse everything but an insert (migrations/versions/0004_tenants.py).
audit_log = Table(
    "audit_log",
    metadata,
    Column("id", Text, primary_key=True),
    Column("organization_id", Text, nullable=False),
    Column("at_ns", BigInteger, nullable=False),
    Column("actor", JSON, nullable=False),  # {"key_id", "key_name", "role", "user_id", "email"}
    Column("actor_id", Text, nullable=False),  # of its user, or else of its admin key
    Column("actor_email", Text, nullable=False, server_default=""),
    Column("address", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("outcome", Text, nullable=False),  # done | refused
    Column("resource_id", Text, nullable=False),
    Column("project_id", Text, nullable=False, server_default=""),
    Column("before", JSON(none_as_null=True)),
    Column("after", JSON(none_as_null=True)),
    Index("ix_audit_log_organization", "organization_id", "at_ns", "id"),
)

# One version of what we charge for a model, or of what we pay for a provider's; see control/pricing.
prices = Table(
    "prices",
    metadata,
    Column("id", Text, primary_key=True),
    Column("side", Text, nullable=False),  # price | cost
    Column("subject", Text, nullable=False),  # the model, or provider/model
    Column("organization_id", Text, nullable=False, server_default=""),  # '': everybody's
    Column("project_id", Text, nullable=False, server_default=""),
    Column("starts", BigInteger, nullable=False),
    Column("ends", BigInteger),
    Column("rates", JSON, nullable=False),  # nano-dollars for a million units of each kind
    Column("conditions", JSON, nullable=False),
    Column("source", Text, nullable=False),  # config | who set it | what it was imported from
    Column("created_at", BigInteger, nullable=False),
    Index("ix_prices_subject", "side", "subject", "starts"),
)

# When a public name was first seen, so that `created` of a model outlives restarts.
models = Table(
    "models",
    metadata,
    Column("name", Text, primary_key=True),
    Column("created_at", BigInteger, nullable=False),
)

replicas = Table(
    "replicas",
    metadata,
    Column("id", Text, primary_key=True),
    Column("model", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("protocols", JSON, nullable=False),
    Column("base_url", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("quirks", JSON, nullable=False),
    Column("context_length", BigInteger),
    Column("max_output", BigInteger),
    Column("capabilities", JSON, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("region", Text, nullable=False, server_default=""),
    Column("jurisdiction", Text, nullable=False, server_default=""),
    Column("retention", BigInteger),
    Column("trains", Boolean(create_constraint=False)),
)

# One row per attempt. Columns are filled as records arrive, in any order; no foreign keys, because usage must
# be kept whatever happened to the key or the model it names.
usage = Table(
    "usage",
    metadata,
    Column("request_id", Text().with_variant(Text(collation="C"), "postgresql"), primary_key=True),
    Column("attempt", BigInteger, primary_key=True),
    Column("opened_ns", BigInteger, nullable=False),  # 0 until Opened or Settled arrived
    Column("key_id", Text, nullable=False, server_default=""),
    Column("project_id", Text, nullable=False, server_default=""),
    Column("organization_id", Text, nullable=False, server_default=""),
    Column("protocol", Text, nullable=False, server_default=""),
    Column("model", Text, nullable=False, server_default=""),
    Column("upstream", Text, nullable=False, server_default=""),
    Column("provider", Text, nullable=False, server_default=""),
    Column("upstream_model", Text, nullable=False, server_default=""),
    Column("stream", Boolean(create_constraint=False), nullable=False, server_default=false()),
    Column("batch", Boolean(create_constraint=False), nullable=False, server_default=false()),
    Column("tier", Text, nullable=False, server_default=""),
    Column("byok", Boolean(create_constraint=False), nullable=False, server_default=false()),
    Column("alias", Text, nullable=False, server_default=""),  # the virtual model that was named, if it was one
    Column("alias_version", BigInteger, nullable=False, server_default="0"),
    Column("alias_seed", BigInteger, nullable=False, server_default="0"),
    Column("shadow", Boolean(create_constraint=False), nullable=False, server_default=false()),
    Column("settled_ns", BigInteger),  # NULL: still running, or its gateway died and has not replayed yet
    Column("outcome", Text),
    *(Column(kind, BigInteger, nullable=False, server_default="0") for kind in KINDS),  # what the caller is billed for
    Column("charge", BigInteger, nullable=False, server_default="0"),  # what the caller pays
    Column("cost", BigInteger, nullable=False, server_default="0"),  # what we pay
    Column("price", Text, nullable=False, server_default=""),  # the versions that both were computed with
    Column("cost_price", Text, nullable=False, server_default=""),
    Column("reported", Text),  # JSON of a UsageRecord: the upstream's own report, where it is not what is billed
    Column("counted", Text),  # the same: our own count, where it differs from the report
    Column("status", BigInteger),
    Column("error", Text),
    Column("finish_reason", Text),
    Column("first_token_ns", BigInteger),
    Column("duration_ns", BigInteger),
    Column("estimated", Boolean(create_constraint=False)),
    Column("rolled", Boolean(create_constraint=False), nullable=False, server_default=false()),  # in usage_hourly
    Column("posting", BigInteger),  # the ledger's charges for it (storage/charges.py)
    Column("residency", Text, nullable=False, server_default=""),  # evidence: which policies it kept, by which labels
    Column("guardrails", Text, nullable=False, server_default=""),  # what they found, as journal/records.py has it
    Index("ix_usage_opened_ns", "opened_ns"),
    Index("ix_usage_organization", "organization_id", "opened_ns"),
    # Attempts under way, and what ingest has to roll up: always few.
    Index("ix_usage_unrolled", "opened_ns", sqlite_where=text("rolled = 0"), postgresql_where=text("NOT rolled")),
    postgresql_partition_by="RANGE (request_id)",  # by month: storage/partitions.py
)


def _sums(name: str, period: str) -> Table:
    return Table(
        name,
        metadata,
        Column("organization_id", Text, primary_key=True),
        Column(period, BigInteger, primary_key=True),  # Unix seconds of its beginning
        Column("project_id", Text, primary_key=True),
        Column("key_id", Text, primary_key=True),
        Column("model", Text, primary_key=True),
        Column("protocol", Text, primary_key=True),
        Column("batch", Boolean(create_constraint=False), primary_key=True),
        Column("tier", Text, primary_key=True),
        Column("outcome", Text, primary_key=True),
        Column("price", Text, primary_key=True),
        Column("attempts", BigInteger, nullable=False),
        *(Column(count, BigInteger, nullable=False, server_default="0") for count in (*KINDS, "charge", "cost")),
        Index(f"ix_{name}_{period}", period),
    )


# Sums over the attempts of an hour, and of a day, that are settled, written with them (storage/rollup.py).
usage_hourly = _sums("usage_hourly", "hour")
usage_daily = _sums("usage_daily", "day")

# The sequence number that control wants next from each gateway, written with the rows it covers.
gateway_positions = Table(
    "gateway_positions",
    metadata,
    Column("gateway_id", Text, primary_key=True),
    Column("next_sequence", BigInteger, nullable=False),
)

# A file, an input of message batches or an output of batches; its bytes are the object files/ID of the object store.
files = Table(
    "files",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", Text, ForeignKey("projects.id"), nullable=False),
    Column("purpose", Text, nullable=False),
    Column("filename", Text, nullable=False),
    Column("bytes", BigInteger),  # NULL: still coming in
    Column("sha256", Text),
    Column("created_ns", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("deleted_at", BigInteger),  # gone for everybody; the object may still have to be removed
    Index("ix_files_project", "project_id", "created_ns"),
)

# Tokens of the results that are there.
BATCH_USAGE = ("input", "cached_input", "cache_write", "output", "reasoning")

batches = Table(
    "batches",
    metadata,
    Column("id", Text, primary_key=True),
    Column("object", Text, nullable=False),  # batch | message_batch: whose rules it follows
    Column("project_id", Text, ForeignKey("projects.id"), nullable=False),
    Column("key_id", Text, ForeignKey("api_keys.id"), nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("input_file_id", Text, nullable=False),
    Column("metadata", JSON(none_as_null=True)),
    Column("output_seconds", BigInteger),  # how long the output files are kept
    Column("status", Text, nullable=False),
    Column("outcome", Text, nullable=False, server_default="completed"),  # what it will be when it ends
    Column("errors", JSON(none_as_null=True)),
    Column("model", Text),
    Column("created_ns", BigInteger, nullable=False),
    Column("in_progress_at", BigInteger),
    Column("finalizing_at", BigInteger),
    Column("cancelling_at", BigInteger),
    Column("ended_at", BigInteger),
    Column("expires_at", BigInteger, nullable=False),
    Column("output_file_id", Text),
    Column("error_file_id", Text),
    Column("total", BigInteger, nullable=False, server_default="0"),
    Column("completed", BigInteger, nullable=False, server_default="0"),
    Column("failed", BigInteger, nullable=False, server_default="0"),
    *(Column(name, BigInteger, nullable=False, server_default="0") for name in BATCH_USAGE),
    Column("leased_ns", BigInteger, nullable=False, server_default="0"),  # batches take turns
    Column("rests_until_ns", BigInteger, nullable=False, server_default="0"),  # its model could not answer
    Column("rests", BigInteger, nullable=False, server_default="0"),  # how often in a row
    Index("ix_batches_project", "project_id", "created_ns"),
    Index("ix_batches_status", "status"),
)

# A line of a batch that has not ended. Its request is a piece of the input object; its result waits here until the
# output is written, so that it and the counts are stored in one transaction.
batch_lines = Table(
    "batch_lines",
    metadata,
    Column("batch_id", Text, ForeignKey("batches.id"), primary_key=True),
    Column("number", BigInteger, primary_key=True),
    Column("custom_id", Text, nullable=False),
    Column("start", BigInteger, nullable=False),
    Column("length", BigInteger, nullable=False),
    Column("crc32", BigInteger, nullable=False),
    Column("state", Text, nullable=False, server_default="waiting"),  # waiting | leased | done
    Column("run", BigInteger, nullable=False, server_default="0"),
    Column("failures", BigInteger, nullable=False, server_default="0"),
    Column("gateway_id", Text),
    Column("leased_until_ns", BigInteger),
    Column("status", BigInteger),
    Column("body", LargeBinary),
    Index("ix_batch_lines_state", "batch_id", "state", "number"),
    Index("ix_batch_lines_gateway", "gateway_id"),
)

# A stored response or a prediction: what its caller sees, and what it was asked.
answers = Table(
    "answers",
    metadata,
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),  # response | prediction
    Column("project_id", Text, ForeignKey("projects.id"), nullable=False),
    Column("model", Text, nullable=False),
    Column("status", Text, nullable=False),  # in the words of its protocol
    Column("ended", Boolean(create_constraint=False), nullable=False),
    Column("created_ns", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("leased_until_ns", BigInteger),  # NULL: ended
    Column("previous_id", Text),
    Column("body", LargeBinary, nullable=False),
    Column("input", LargeBinary, nullable=False),
    Column("event_count", BigInteger, nullable=False, server_default="0"),
    Column("webhook_url", Text),
    Column("webhook_events", JSON(none_as_null=True)),
    Index("ix_answers_project", "project_id", "kind", "created_ns"),
    Index("ix_answers_leased_until_ns", "leased_until_ns"),
    Index("ix_answers_expires_at", "expires_at"),
)

answer_events = Table(
    "answer_events",
    metadata,
    Column("answer_id", Text, ForeignKey("answers.id", ondelete="CASCADE"), primary_key=True),
    Column("first", BigInteger, primary_key=True),
    Column("count", BigInteger, nullable=False),
    Column("packed", LargeBinary, nullable=False),
)

# A webhook that waits to be delivered, in the order of its answer's `number`; gone when it was, or was given up.
webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("id", Text, primary_key=True),
    Column("answer_id", Text, nullable=False),
    Column("project_id", Text, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("event", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("attempts", BigInteger, nullable=False, server_default="0"),
    Column("due_ns", BigInteger, nullable=False),
    Index("ix_webhook_deliveries_due_ns", "due_ns"),
    Index("ix_webhook_deliveries_answer", "answer_id", "number"),
)

# Where a project's, or an organization's, requests may be answered and kept; NULL: not restricted.
# Virtual models, a row for each version: append-only, triggers refuse everything but an insert.
alias_versions = Table(
    "alias_versions",
    metadata,
    Column("name", Text, primary_key=True),
    Column("version", BigInteger, primary_key=True),  # 1, 2, ... without gaps
    Column("definition", JSON(none_as_null=True)),  # NULL: from then on there is no such alias
    Column("from_file", Boolean(create_constraint=False), nullable=False),
    Column("author", Text, nullable=False),
    Column("note", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

residency = Table(
    "residency",
    metadata,
    Column("id", Text, primary_key=True),  # of the project or organization
    Column("organization_id", Text, ForeignKey("organizations.id"), nullable=False),
    Column("regions", JSON(none_as_null=True)),
    Column("jurisdictions", JSON(none_as_null=True)),
    Column("retention", BigInteger),
    Column("no_training", Boolean, nullable=False),
)

# A provider's key that a project brought itself, sealed for the gateways; the key itself is nowhere.
provider_keys = Table(
    "provider_keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", Text, ForeignKey("projects.id"), nullable=False),
    Column("provider", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("redacted", Text, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Index("ix_provider_keys_project", "project_id", "created_at"),
)
