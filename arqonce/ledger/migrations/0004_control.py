"""The pauses of queues and kinds, and the record of operators' acts.

Revision ID: 0004
Revises: 0003
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Apply."""
    schema = op.get_context().version_table_schema
    time = sa.DateTime(timezone=True)
    op.create_table(
        "pauses",
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("job_name", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("paused_by", sa.Text(), nullable=False),
        sa.Column("paused_at", time, server_default=sa.text("now()"), nullable=False),
        sa.Column("until", time, nullable=True),
        sa.PrimaryKeyConstraint("queue", "job_name", name=op.f("pauses_pkey")),
        schema=schema,
    )
    op.create_table(
        "audit",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("at", time, server_default=sa.text("now()"), nullable=False),
        sa.Column("who", sa.Text(), nullable=False),
        sa.Column("act", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("why", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("audit_pkey")),
        schema=schema,
    )
    op.create_index(op.f("audit_at_idx"), "audit", ["at"], schema=schema)


def downgrade() -> None:
    """Undo. What was paused goes on, and the record of acts is lost."""
    schema = op.get_context().version_table_schema
    op.drop_table("audit", schema=schema)
    op.drop_table("pauses", schema=schema)
