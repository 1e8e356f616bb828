"""Workspaces, keys and the audit log"""

from collections.abc import Callable

import sqlalchemy as sa
from alembic import op
from alembic.operations import BatchOperations
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

OWNED = (
    "models",
    "model_versions",
    "uploads",
    "datasets",
    "jobs",
    "modules",
    "deployments",
    "webhooks",
    "webhook_deliveries",
)
NAMED = ("models", "deployments")


def upgrade() -> None:
    """Apply the migration."""
    workspaces = op.create_table(
        "workspaces",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("max_bytes", sa.BigInteger(), nullable=True),
        sa.Column("max_jobs", sa.Integer(), nullable=True),
        sa.Column("requests_per_minute", sa.Integer(), nullable=True),
        sa.Column("require_signature", sa.Boolean(), server_default="0", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_workspaces")),
    )
    op.execute(
        sa.insert(workspaces).values(name="default", require_signature=False, created_at=sa.func.current_timestamp())
    )
    op.create_table(
        "keys",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("hint", sa.String(), nullable=False),
        sa.Column("scopes", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=False),
        sa.Column("parent_id", sa.String(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        _workspace(),
        sa.ForeignKeyConstraint(["parent_id"], ["keys.id"], name=op.f("fk_keys_parent_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_keys")),
        sa.UniqueConstraint("digest", name=op.f("uq_keys_digest")),
    )
    op.create_table(
        "audit",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("key_id", sa.String(), nullable=True),
        sa.Column("who", sa.String(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("method", sa.String(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("address", sa.String(), nullable=False),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("request_id", sa.String(), nullable=False),
        _workspace(),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
    )
    op.create_index(op.f("ix_keys_workspace"), "keys", ["workspace"])
    op.create_index(op.f("ix_audit_workspace"), "audit", ["workspace"])
    op.create_index(op.f("ix_audit_workspace_id"), "audit", ["workspace", "id"])
    for table in OWNED:
        with op.batch_alter_table(table) as batch:
            batch.add_column(_workspace())
            batch.create_index(batch.f(f"ix_{table}_workspace"), ["workspace"])
    for table in NAMED:
        with op.batch_alter_table(table) as batch:
            batch.drop_constraint(f"uq_{table}_name", type_="unique")
            batch.create_unique_constraint(batch.f(f"uq_{table}_workspace_name"), ["workspace", "name"])
    _rekey(["workspace", "key"], lambda batch: batch.add_column(_workspace()))


def downgrade() -> None:
    """Revert the migration."""
    _rekey(["key"], lambda batch: batch.drop_column("workspace"))
    for table in NAMED:
        with op.batch_alter_table(table) as batch:
            batch.drop_constraint(f"uq_{table}_workspace_name", type_="unique")
            batch.create_unique_constraint(batch.f(f"uq_{table}_name"), ["name"])
    for table in OWNED:
        with op.batch_alter_table(table) as batch:
            batch.drop_index(batch.f(f"ix_{table}_workspace"))
            batch.drop_column("workspace")
    op.drop_table("audit")
    op.drop_table("keys")
    op.drop_table("workspaces")


def _workspace() -> sa.Column[str]:
    return sa.Column("workspace", sa.String(), server_default="default", nullable=False)


def _rekey(columns: list[str], change: Callable[[BatchOperations], None]) -> None:
    with op.batch_alter_table("idempotency_keys") as batch:
        batch.drop_constraint("pk_idempotency_keys", type_="primary")
        change(batch)
        batch.create_primary_key("pk_idempotency_keys", columns)
