"""Checks of versions on labelled images, and jobs that run although a network guesses"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

WAITING = sa.text("checking IS NOT NULL")


def upgrade() -> None:
    """Apply the migration."""
    document = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
    op.add_column("model_versions", sa.Column("checking", sa.String(), nullable=True))
    op.add_column("model_versions", sa.Column("check_result", document, nullable=True))
    op.add_column("jobs", sa.Column("anyway", sa.Boolean(), server_default="0", nullable=False))
    op.create_index(
        "ix_model_versions_checking", "model_versions", ["id"], postgresql_where=WAITING, sqlite_where=WAITING
    )


def downgrade() -> None:
    """Revert the migration."""
    op.drop_index("ix_model_versions_checking", "model_versions")
    with op.batch_alter_table("jobs") as batch:
        batch.drop_column("anyway")
    with op.batch_alter_table("model_versions") as batch:
        batch.drop_column("check_result")
        batch.drop_column("checking")
