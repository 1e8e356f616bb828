"""Indexes for frequent queries, and the time of an upload's first use"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

INDEXES = {
    "aliases": ("version_id",),
    "attempts": ("ended_at",),
    "audit": ("at",),
    "bundles": ("key",),
    "datasets": ("archived_at", "key"),
    "deployments": ("deleted_at",),
    "jobs": ("dataset_id", "source_version_id", "target_version_id"),
    "keys": ("parent_id",),
    "model_versions": ("archived_at", "key"),
    "models": ("archived_at",),
    "modules": ("archived_at", "source_version_id", "target_fingerprint", "target_version_id"),
    "revisions": ("version_id",),
    "uploads": ("key",),
    "webhook_deliveries": ("since",),
}
LEASED, UNUSED = sa.text("lease_worker IS NOT NULL"), sa.text("used_at IS NULL")


def upgrade() -> None:
    """Apply the migration."""
    op.add_column("uploads", sa.Column("used_at", sa.DateTime(timezone=True), nullable=True))
    for table, columns in INDEXES.items():
        for column in columns:
            op.create_index(f"ix_{table}_{column}", table, [column])
    op.create_index(
        "ix_webhook_deliveries_webhook_id_state_due_at", "webhook_deliveries", ["webhook_id", "state", "due_at"]
    )
    op.create_index(
        "ix_webhook_deliveries_leased",
        "webhook_deliveries",
        ["webhook_id"],
        postgresql_where=LEASED,
        sqlite_where=LEASED,
    )
    op.create_index("ix_uploads_unused", "uploads", ["completed_at"], postgresql_where=UNUSED, sqlite_where=UNUSED)
    for table in ("bundles", "datasets", "model_versions"):
        op.execute(f"UPDATE uploads SET used_at = completed_at WHERE key IN (SELECT key FROM {table})")  # noqa: S608


def downgrade() -> None:
    """Revert the migration."""
    op.drop_index("ix_uploads_unused", "uploads")
    op.drop_index("ix_webhook_deliveries_leased", "webhook_deliveries")
    op.drop_index("ix_webhook_deliveries_webhook_id_state_due_at", "webhook_deliveries")
    for table, columns in INDEXES.items():
        for column in columns:
            op.drop_index(f"ix_{table}_{column}", table)
    op.drop_column("uploads", "used_at")
