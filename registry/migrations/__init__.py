"""Alembic's history of the hub's one database."""
