"""Which classes of a model may be cloned"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    with op.batch_alter_table("models") as batch:
        batch.add_column(sa.Column("clonable", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=True))


def downgrade() -> None:
    """Take back."""
    with op.batch_alter_table("models") as batch:
        batch.drop_column("clonable")
