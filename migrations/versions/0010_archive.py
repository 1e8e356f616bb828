"""Archived and purged versions, datasets and modules"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

COLUMNS = {
    "models": ("purged_at",),
    "model_versions": ("archived_at", "purged_at"),
    "datasets": ("archived_at", "purged_at"),
    "modules": ("archived_at", "purged_at"),
}


def upgrade() -> None:
    """Apply the migration."""
    for table, columns in COLUMNS.items():
        with op.batch_alter_table(table) as batch:
            for column in columns:
                batch.add_column(sa.Column(column, sa.DateTime(timezone=True), nullable=True))
    with op.batch_alter_table("workspaces") as batch:
        batch.add_column(sa.Column("retention_days", sa.Integer(), nullable=True))


def downgrade() -> None:
    """Revert the migration."""
    with op.batch_alter_table("workspaces") as batch:
        batch.drop_column("retention_days")
    for table, columns in COLUMNS.items():
        with op.batch_alter_table(table) as batch:
            for column in columns:
                batch.drop_column(column)
