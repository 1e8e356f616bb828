"""Database migrations; `app.zoo.db.migrate` or `alembic upgrade head` runs them."""
