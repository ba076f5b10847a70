"""Usage by more kinds, what an attempt costs us, and the versions of prices that it was charged with."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_KINDS = (
    "cache_write_1h",
    "input_audio",
    "input_image",
    "output_audio",
    "output_image",
    "priced_requests",
    "audio_ms",
    "images",
    "gpu_ms",
)
_TEXTS = ("price", "cost_price")
_COUNTS = ("reported", "counted")


def upgrade() -> None:
    for table in ("usage", "usage_hourly"):
        for name in (*_KINDS, "cost"):
            op.add_column(table, sa.Column(name, sa.BigInteger, nullable=False, server_default="0"))
    for name in _TEXTS:
        op.add_column("usage", sa.Column(name, sa.Text, nullable=False, server_default=""))
    for name in _COUNTS:
        op.add_column("usage", sa.Column(name, sa.Text))


def downgrade() -> None:
    for name in (*_KINDS, "cost"):
        op.drop_column("usage_hourly", name)
    for name in (*_KINDS, "cost", *_TEXTS, *_COUNTS):
        op.drop_column("usage", name)
