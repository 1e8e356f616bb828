"""Accuracy of a version, with its dataset and number of images"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

COLUMNS = {"accuracy": sa.Double, "accuracy_images": sa.Integer, "accuracy_dataset": sa.String}


def upgrade() -> None:
    """Apply the migration."""
    with op.batch_alter_table("model_versions") as batch:
        for column, kind in COLUMNS.items():
            batch.add_column(sa.Column(column, kind(), nullable=True))


def downgrade() -> None:
    """Revert the migration."""
    with op.batch_alter_table("model_versions") as batch:
        for column in COLUMNS:
            batch.drop_column(column)
