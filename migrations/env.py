"""Runs the migrations: on the connection it is given, or on the configured database.

The service hands over a connection inside a transaction (`models_store.database.revisions.migrate`);
Alembic's own command line reads the same settings as the service.
"""

from alembic import context
from sqlalchemy import Connection

from models_store.database.engines import migration_engine, parse_url
from models_store.database.schema import METADATA
from models_store.settings import StoreSettings


def _run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=METADATA,
        # SQLite changes a table by making a new one.
        render_as_batch=connection.dialect.name == "sqlite",
        compare_server_default=True,
    )
    with context.begin_transaction():
        context.run_migrations()


def _run_on_settings() -> None:
    engine = migration_engine(parse_url(StoreSettings().resolved_database_url))
    try:
        with engine.begin() as connection:
            _run(connection)
    finally:
        engine.dispose()


_given: Connection | None = context.config.attributes.get("connection")
if _given is None:
    _run_on_settings()
else:
    _run(_given)
