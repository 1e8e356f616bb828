"""Inspections of datasets: every image decoded once by a worker, with duplicates, sizes, warnings and samples"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

WAITING = sa.text("inspection = 'waiting'")


def upgrade() -> None:
    """Apply the migration."""
    document = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
    with op.batch_alter_table("datasets") as batch:
        batch.add_column(sa.Column("lease_worker", sa.String(), nullable=True))
        batch.add_column(sa.Column("lease_token", sa.BigInteger(), server_default="0", nullable=False))
        batch.add_column(sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True))
        batch.add_column(sa.Column("attempts", sa.Integer(), server_default="0", nullable=False))
        batch.add_column(sa.Column("inspection", sa.String(), server_default="waiting", nullable=False))
        batch.add_column(sa.Column("inspected", sa.BigInteger(), server_default="0", nullable=False))
        batch.add_column(sa.Column("unreadable", sa.BigInteger(), server_default="0", nullable=False))
        batch.add_column(sa.Column("findings", document, nullable=True))
        batch.add_column(sa.Column("problem", document, nullable=True))
        batch.add_column(sa.Column("faults", sa.LargeBinary(), nullable=True))
        batch.create_check_constraint(op.f("ck_datasets_inspection"), "inspection IN ('waiting', 'done', 'failed')")
    op.create_index(op.f("ix_datasets_lease_expires_at"), "datasets", ["lease_expires_at"])
    op.create_index("ix_datasets_inspection", "datasets", ["id"], postgresql_where=WAITING, sqlite_where=WAITING)
    op.create_table(
        "dataset_parts",
        sa.Column("dataset_id", sa.String(), nullable=False),
        sa.Column("first", sa.BigInteger(), nullable=False),
        sa.Column("rows", sa.Integer(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name=op.f("fk_dataset_parts_dataset_id_datasets")),
        sa.PrimaryKeyConstraint("dataset_id", "first", name=op.f("pk_dataset_parts")),
    )
    op.create_table(
        "dataset_samples",
        sa.Column("dataset_id", sa.String(), nullable=False),
        sa.Column("label", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("picture", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name=op.f("fk_dataset_samples_dataset_id_datasets")),
        sa.PrimaryKeyConstraint("dataset_id", "label", name=op.f("pk_dataset_samples")),
    )


def downgrade() -> None:
    """Revert the migration."""
    op.drop_table("dataset_samples")
    op.drop_table("dataset_parts")
    op.drop_index("ix_datasets_inspection", "datasets")
    op.drop_index(op.f("ix_datasets_lease_expires_at"), "datasets")
    with op.batch_alter_table("datasets") as batch:
        batch.drop_constraint(op.f("ck_datasets_inspection"), type_="check")
        for name in ("faults", "problem", "findings", "unreadable", "inspected", "inspection", "attempts",
                     "lease_expires_at", "lease_token", "lease_worker"):  # fmt: skip
            batch.drop_column(name)
