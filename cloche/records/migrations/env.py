"""Run by alembic: migrates the database of the connection that `records.database` hands over."""

from alembic import context

from cloche.records import tables

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=tables.metadata,
    render_as_batch=True,  # SQLite can't alter a column: alembic copies the table
)
with context.begin_transaction():
    context.run_migrations()
