"""Alembic's entry: run on the connection that `storage.migrate` hands over, one transaction per step."""

from alembic import context

from modelyard.storage.tables import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, transaction_per_migration=True, transactional_ddl=True)
context.run_migrations()
