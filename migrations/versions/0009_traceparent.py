"""Traceparents of jobs and shared steps"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply the migration."""
    for table in ("jobs", "steps"):
        with op.batch_alter_table(table) as batch:
            batch.add_column(sa.Column("traceparent", sa.String(), nullable=True))


def downgrade() -> None:
    """Revert the migration."""
    for table in ("jobs", "steps"):
        with op.batch_alter_table(table) as batch:
            batch.drop_column("traceparent")
