"""Indexes on dead letters by queue and on slots by fleet: rows of others cost neither metrics nor schedulers anything.

Revision ID: 0008
Revises: 0007
"""

from collections.abc import Sequence

from alembic import op

revision: str = "0008"
down_revision: str | None = "0007"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Apply. With ten million dead letters it takes some seconds, in which none is written.

    Schedulers of earlier versions go on, with slower looks if there are thousands of schedules.
    """
    schema = op.get_context().version_table_schema
    op.create_index(op.f("dead_jobs_queue_idx"), "dead_jobs", ["queue"], schema=schema)
    op.create_index(op.f("schedules_fleet_slot_idx"), "schedules", ["fleet", "next_slot"], schema=schema)
    op.drop_index(op.f("schedules_next_slot_idx"), "schedules", schema=schema)


def downgrade() -> None:
    """Undo."""
    schema = op.get_context().version_table_schema
    op.create_index(op.f("schedules_next_slot_idx"), "schedules", ["next_slot"], schema=schema)
    op.drop_index(op.f("schedules_fleet_slot_idx"), "schedules", schema=schema)
    op.drop_index(op.f("dead_jobs_queue_idx"), "dead_jobs", schema=schema)
