"""Origin of a version, and imports that workers run"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

DOCUMENT = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
STATES = "state IN ('queued', 'running', 'cancelling', 'succeeded', 'failed', 'cancelled')"


def upgrade() -> None:
    """Apply the migration."""
    op.add_column("model_versions", sa.Column("origin", DOCUMENT, nullable=True))
    op.create_table(
        "imports",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("workspace", sa.String(), server_default="default", nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("spec", DOCUMENT, nullable=True),
        sa.Column("licence", sa.String(), nullable=False),
        sa.Column("description", sa.String(), nullable=False),
        sa.Column("progress", sa.Double(), nullable=False),
        sa.Column("message", sa.String(), nullable=False),
        sa.Column("problem", DOCUMENT, nullable=True),
        sa.Column("version_id", sa.String(), nullable=True),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lease_worker", sa.String(), nullable=True),
        sa.Column("lease_token", sa.BigInteger(), nullable=False),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.CheckConstraint(STATES, name=op.f("ck_imports_state")),
        sa.ForeignKeyConstraint(["version_id"], ["model_versions.id"], name=op.f("fk_imports_version_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_imports")),
    )
    for columns in (("workspace",), ("lease_expires_at",), ("version_id",), ("state", "id")):
        op.create_index(f"ix_imports_{'_'.join(columns)}", "imports", [*columns])


def downgrade() -> None:
    """Revert the migration."""
    op.drop_table("imports")
    with op.batch_alter_table("model_versions") as batch:
        batch.drop_column("origin")
