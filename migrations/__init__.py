"""Database migrations; `app.db.engine.migrate` or `alembic upgrade head` runs them."""
