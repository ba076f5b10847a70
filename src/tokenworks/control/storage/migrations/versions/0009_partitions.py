"""`usage` in partitions by the month of its request ids (PostgreSQL), and sums of usage by the day."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

_KEY = (
    "organization_id", "day", "project_id", "key_id", "model", "protocol", "batch", "tier", "outcome", "price",
)  # fmt: skip
_COUNTS = (
    "input", "cached_input", "cache_write", "output", "reasoning", "cache_write_1h", "input_audio", "input_image",
    "output_audio", "output_image", "priced_requests", "audio_ms", "images", "gpu_ms", "charge", "cost",
)  # fmt: skip
_INDEXES = {
    "ix_usage_opened_ns": "(opened_ns)",
    "ix_usage_organization": "(organization_id, opened_ns)",
    "ix_usage_unrolled": "(opened_ns) WHERE NOT rolled",
}


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        for statement in _partitioned():
            op.execute(statement)
    _usage_daily()


def _partitioned() -> list[str]:
    """No row is copied: what there was becomes the default partition, its indexes parts of the new ones."""
    renamed = [f"ALTER INDEX {name} RENAME TO {name.replace('usage', 'usage_default', 1)}" for name in _INDEXES]
    return [
        "ALTER TABLE usage RENAME TO usage_default",
        "ALTER INDEX pk_usage RENAME TO pk_usage_default",
        *renamed,
        # Ids are compared by their bytes, whatever the language of the database.
        'ALTER TABLE usage_default ALTER request_id TYPE text COLLATE "C"',
        "CREATE TABLE usage (LIKE usage_default INCLUDING DEFAULTS, CONSTRAINT pk_usage PRIMARY KEY "
        "(request_id, attempt)) PARTITION BY RANGE (request_id)",
        "ALTER TABLE usage ATTACH PARTITION usage_default DEFAULT",
        *(f"CREATE INDEX {name} ON usage {of}" for name, of in _INDEXES.items()),
    ]


def _usage_daily() -> None:
    types = {"day": sa.BigInteger, "batch": sa.Boolean}
    op.create_table(
        "usage_daily",
        *(sa.Column(name, types.get(name, sa.Text), nullable=False) for name in _KEY),
        sa.Column("attempts", sa.BigInteger, nullable=False),
        *(sa.Column(name, sa.BigInteger, nullable=False, server_default="0") for name in _COUNTS),
        sa.PrimaryKeyConstraint(*_KEY, name="pk_usage_daily"),
    )
    op.create_index("ix_usage_daily_day", "usage_daily", ["day"])
    kept = ", ".join(name for name in _KEY if name != "day")
    sums = ", ".join(f"CAST(sum({name}) AS BIGINT)" for name in ("attempts", *_COUNTS))
    op.execute(
        f"INSERT INTO usage_daily ({kept}, day, attempts, {', '.join(_COUNTS)}) "  # noqa: S608 -- constants
        f"SELECT {kept}, hour / 86400 * 86400, {sums} FROM usage_hourly GROUP BY {kept}, hour / 86400 * 86400"
    )


def downgrade() -> None:
    op.drop_table("usage_daily")
    if op.get_bind().dialect.name != "postgresql":
        return
    op.execute("CREATE TABLE usage_flat (LIKE usage INCLUDING DEFAULTS)")
    op.execute("INSERT INTO usage_flat SELECT * FROM usage")
    op.execute("DROP TABLE usage")
    op.execute("ALTER TABLE usage_flat RENAME TO usage")
    op.execute('ALTER TABLE usage ALTER request_id TYPE text COLLATE "default"')
    op.execute("ALTER TABLE usage ADD CONSTRAINT pk_usage PRIMARY KEY (request_id, attempt)")
    for name, of in _INDEXES.items():
        op.execute(f"CREATE INDEX {name} ON usage {of}")
