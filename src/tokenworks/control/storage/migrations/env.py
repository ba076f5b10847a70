"""Alembic's entry point. The connection, and so the transaction, is the caller's (storage/migrate.py)."""

from alembic import context

from tokenworks.control.storage.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
