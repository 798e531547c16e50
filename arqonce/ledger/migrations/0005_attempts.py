"""The record of attempts that failed, and of the times at which Redis had lost jobs.

Revision ID: 0005
Revises: 0004
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Apply."""
    schema = op.get_context().version_table_schema
    time = sa.DateTime(timezone=True)
    op.create_table(
        "attempts",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("job_name", sa.Text(), nullable=False),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("sqlstate", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("started_at", time, nullable=False),
        sa.Column("failed_at", time, nullable=False),
        sa.Column("retry_at", time, nullable=True),
        sa.Column("counted", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("attempts_pkey")),
        schema=schema,
    )
    op.create_index(op.f("attempts_job_id_idx"), "attempts", ["job_id", "failed_at"], schema=schema)
    op.create_index(op.f("attempts_failed_at_idx"), "attempts", ["failed_at"], schema=schema)
    op.create_table(
        "redis_losses",
        sa.Column("epoch", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("noticed_at", time, server_default=sa.text("now()"), nullable=False),
        sa.Column("given_again", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("epoch", name=op.f("redis_losses_pkey")),
        schema=schema,
    )


def downgrade() -> None:
    """Undo. The history of attempts is lost."""
    schema = op.get_context().version_table_schema
    op.drop_table("redis_losses", schema=schema)
    op.drop_table("attempts", schema=schema)
