"""An index on dead letters by kind and reason, by which operators find and count groups of them.

Revision ID: 0006
Revises: 0005
"""

from collections.abc import Sequence

from alembic import op

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Apply. With a million dead letters it takes some seconds, in which none is written."""
    schema = op.get_context().version_table_schema
    columns = ["job_name", "reason", "died_at"]
    op.create_index(op.f("dead_jobs_job_name_idx"), "dead_jobs", columns, schema=schema)


def downgrade() -> None:
    """Undo."""
    op.drop_index(op.f("dead_jobs_job_name_idx"), "dead_jobs", schema=op.get_context().version_table_schema)
