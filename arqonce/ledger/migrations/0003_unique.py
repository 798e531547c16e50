"""The requests that are unique for a time.

Revision ID: 0003
Revises: 0002
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Apply."""
    schema = op.get_context().version_table_schema
    op.create_table(
        "unique_requests",
        sa.Column("name", sa.LargeBinary(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("unique_requests_pkey")),
        schema=schema,
    )
    op.create_index(op.f("unique_requests_until_idx"), "unique_requests", ["until"], schema=schema)


def downgrade() -> None:
    """Undo: equal requests are no longer known again."""
    op.drop_table("unique_requests", schema=op.get_context().version_table_schema)
