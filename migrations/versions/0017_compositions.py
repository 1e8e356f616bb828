"""Compositions: numbers that a set of modules needs on one target, and the composition of a revision"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

DOCUMENT = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
STATES = "state IN ('queued', 'running', 'cancelling', 'ready', 'failed', 'cancelled')"
HEADS = "head IN ('affine', 'joint', 'ridge')"


def upgrade() -> None:
    """Apply the migration."""
    op.create_table(
        "compositions",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("workspace", sa.String(), server_default="default", nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("target_version_id", sa.String(), nullable=False),
        sa.Column("dataset_id", sa.String(), nullable=False),
        sa.Column("head", sa.String(), nullable=False),
        sa.Column("keep_anyway", sa.Boolean(), nullable=False),
        sa.Column("modules_digest", sa.String(), nullable=False),
        sa.Column("progress", sa.Double(), nullable=False),
        sa.Column("message", sa.String(), nullable=False),
        sa.Column("problem", DOCUMENT, nullable=True),
        sa.Column("manifest", DOCUMENT, nullable=True),
        sa.Column("digest", sa.String(), nullable=True),
        sa.Column("bytes", sa.BigInteger(), nullable=True),
        sa.Column("key", sa.String(), nullable=True),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lease_worker", sa.String(), nullable=True),
        sa.Column("lease_token", sa.BigInteger(), nullable=False),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.CheckConstraint(STATES, name=op.f("ck_compositions_state")),
        sa.CheckConstraint(HEADS, name=op.f("ck_compositions_head")),
        sa.ForeignKeyConstraint(
            ["target_version_id"], ["model_versions.id"], name=op.f("fk_compositions_target_version_id")
        ),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name=op.f("fk_compositions_dataset_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_compositions")),
    )
    for columns in (
        ("workspace",), ("lease_expires_at",), ("dataset_id",), ("key",), ("state", "id"),
        ("target_version_id", "modules_digest"),
    ):  # fmt: skip
        op.create_index(f"ix_compositions_{'_'.join(columns)}", "compositions", [*columns])
    op.create_table(
        "composition_modules",
        sa.Column("composition_id", sa.String(), nullable=False),
        sa.Column("module_id", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["composition_id"], ["compositions.id"], name=op.f("fk_composition_modules_composition_id")
        ),
        sa.ForeignKeyConstraint(["module_id"], ["modules.id"], name=op.f("fk_composition_modules_module_id")),
        sa.PrimaryKeyConstraint("composition_id", "module_id", name=op.f("pk_composition_modules")),
    )
    op.create_index(op.f("ix_composition_modules_module_id"), "composition_modules", ["module_id"])
    with op.batch_alter_table("revisions") as batch:
        batch.add_column(sa.Column("composition_id", sa.String(), nullable=True))
        batch.create_foreign_key(op.f("fk_revisions_composition_id"), "compositions", ["composition_id"], ["id"])
    op.create_index(op.f("ix_revisions_composition_id"), "revisions", ["composition_id"])


def downgrade() -> None:
    """Revert the migration."""
    op.drop_index(op.f("ix_revisions_composition_id"), "revisions")
    with op.batch_alter_table("revisions") as batch:
        batch.drop_constraint(op.f("fk_revisions_composition_id"), type_="foreignkey")
        batch.drop_column("composition_id")
    op.drop_table("composition_modules")
    op.drop_table("compositions")
