"""Clonable classes of a model"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply the migration."""
    with op.batch_alter_table("models") as batch:
        batch.add_column(sa.Column("clonable", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=True))


def downgrade() -> None:
    """Revert the migration."""
    with op.batch_alter_table("models") as batch:
        batch.drop_column("clonable")
