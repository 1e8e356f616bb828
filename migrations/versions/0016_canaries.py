"""Canaries of deployments: a second set of modules on a share of the requests, and the counts of its comparison"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

COUNTS = ("main_requests", "canary_requests", "agreed", "differed", "dropped", "failed")


def upgrade() -> None:
    """Apply the migration."""
    op.create_table(
        "canaries",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("deployment_id", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        *(sa.Column(name, sa.BigInteger(), server_default="0", nullable=False) for name in COUNTS),
        sa.Column("logit_difference", sa.Double(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(["deployment_id"], ["deployments.id"], name=op.f("fk_canaries_deployment_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_canaries")),
    )
    op.create_index(op.f("ix_canaries_deployment_id"), "canaries", ["deployment_id"])
    op.create_table(
        "canary_modules",
        sa.Column("canary_id", sa.String(), nullable=False),
        sa.Column("module_id", sa.String(), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["canary_id"], ["canaries.id"], name=op.f("fk_canary_modules_canary_id")),
        sa.ForeignKeyConstraint(["module_id"], ["modules.id"], name=op.f("fk_canary_modules_module_id")),
        sa.PrimaryKeyConstraint("canary_id", "module_id", name=op.f("pk_canary_modules")),
    )
    op.create_index(op.f("ix_canary_modules_module_id"), "canary_modules", ["module_id"])
    op.create_table(
        "canary_revisions",
        sa.Column("deployment_id", sa.String(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("canary_id", sa.String(), nullable=False),
        sa.Column("mode", sa.String(), nullable=False),
        sa.Column("share", sa.Double(), nullable=False),
        sa.CheckConstraint("mode IN ('canary', 'shadow')", name=op.f("ck_canary_revisions_mode")),
        sa.ForeignKeyConstraint(["canary_id"], ["canaries.id"], name=op.f("fk_canary_revisions_canary_id")),
        sa.ForeignKeyConstraint(
            ["deployment_id", "generation"],
            ["revisions.deployment_id", "revisions.generation"],
            name=op.f("fk_canary_revisions_deployment_id_generation"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("deployment_id", "generation", name=op.f("pk_canary_revisions")),
    )
    op.create_index(op.f("ix_canary_revisions_canary_id"), "canary_revisions", ["canary_id"])


def downgrade() -> None:
    """Revert the migration."""
    op.drop_table("canary_revisions")
    op.drop_table("canary_modules")
    op.drop_table("canaries")
