"""Trusted keys and signatures of modules"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply the migration."""
    op.create_table(
        "trusted_keys",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("workspace", sa.String(), server_default="default", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_trusted_keys")),
        sa.UniqueConstraint("workspace", "name", name=op.f("uq_trusted_keys_workspace_name")),
    )
    op.create_table(
        "signatures",
        sa.Column("module_id", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("workspace", sa.String(), server_default="default", nullable=False),
        sa.ForeignKeyConstraint(["module_id"], ["modules.id"], name=op.f("fk_signatures_module_id")),
        sa.PrimaryKeyConstraint("module_id", name=op.f("pk_signatures")),
    )
    op.create_index(op.f("ix_trusted_keys_workspace"), "trusted_keys", ["workspace"])
    op.create_index(op.f("ix_signatures_workspace"), "signatures", ["workspace"])


def downgrade() -> None:
    """Revert the migration."""
    op.drop_table("signatures")
    op.drop_table("trusted_keys")
