"""Entry point of Alembic. Migrates the database of a given connection, or the database in the settings."""

from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlalchemy import JSON, Connection

from app.db.clock import UtcDateTime
from app.db.engine import Database, writing_schema
from app.db.text import Text
from app.process import permissions
from app.settings import Settings
from app.tables import Base

_TABLES = Base.metadata


def _render(kind: str, item: Any, autogenerate: AutogenContext) -> str | Literal[False]:
    """Render our column types as SQLAlchemy's types, because a migration must not depend on code that changes."""
    if kind == "type" and isinstance(item, UtcDateTime):
        return "sa.DateTime(timezone=True)"
    if kind == "type" and isinstance(item, Text):
        return "sa.String()"
    if kind == "type" and isinstance(item, JSON):
        autogenerate.imports.add("from sqlalchemy.dialects import postgresql")
        return 'sa.JSON().with_variant(postgresql.JSONB(), "postgresql")'
    return False


def _run(connection: Connection) -> None:
    # Batch mode, because SQLite supports few changes with ALTER TABLE.
    context.configure(connection=connection, target_metadata=_TABLES, render_as_batch=True, render_item=_render)
    with context.begin_transaction():
        context.run_migrations()


def _run_on_settings_database() -> None:
    settings = Settings()
    if settings.database_url.startswith("sqlite"):
        permissions.begin(settings)
        settings.data_dir.mkdir(parents=True, exist_ok=True)
    database = Database(settings.database_url)
    with writing_schema(database) as connection:
        _run(connection)
    database.close()


given = context.config.attributes.get("connection")
if given is None:
    _run_on_settings_database()
else:
    _run(given)
