"""Runs the migrations over the connection that `tutelage.coordinator.db` hands in."""

from __future__ import annotations

from alembic import context

from tutelage.coordinator.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    compare_type=True,
    render_as_batch=True,  # SQLite alters a table by copying it
)
with context.begin_transaction():
    context.run_migrations()
