"""Alembic's entry: runs the migrations on the connection that `registry/database.py` hands over."""

from alembic import context
from sqlalchemy import Connection

from interhub.registry.tables import metadata

connection: object = context.config.attributes.get("connection")
if not isinstance(connection, Connection):
    raise RuntimeError("migrations run when interhub opens its database: there is nothing to run by hand")

context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
