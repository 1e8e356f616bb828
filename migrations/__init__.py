"""Database migrations. Run them with `app.db.engine.migrate` or `alembic upgrade head`."""
