"""Creates the tables of schedules."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Apply."""
    schema = op.get_context().version_table_schema
    time = sa.DateTime(timezone=True)
    op.create_table(
        "schedules",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("definition", sa.BigInteger(), nullable=False),
        sa.Column("fleet", sa.Text(), nullable=False),
        sa.Column("release", sa.Text(), nullable=False),
        sa.Column("job_name", sa.Text(), nullable=True),
        sa.Column("cron", sa.Text(), nullable=True),
        sa.Column("every", sa.Interval(), nullable=True),
        sa.Column("zone", sa.Text(), nullable=False),
        sa.Column("starts", time, nullable=True),
        sa.Column("ends", time, nullable=True),
        sa.Column("queue", sa.Text(), nullable=True),
        sa.Column("overlap", sa.Text(), nullable=False),
        sa.Column("catch_up", sa.Interval(), nullable=False),
        sa.Column("next_slot", time, nullable=True),
        sa.Column("last_slot", time, nullable=True),
        sa.Column("last_job_id", sa.Text(), nullable=True),
        sa.Column("skipped", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("last_skipped", time, nullable=True),
        sa.Column("skip_reason", sa.Text(), nullable=True),
        sa.Column("paused_until", time, nullable=True),
        sa.Column("paused_at", time, nullable=True),
        sa.Column("paused_by", sa.Text(), nullable=True),
        sa.Column("paused_why", sa.Text(), nullable=True),
        sa.Column("created_at", time, server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", time, server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("schedules_pkey")),
        schema=schema,
    )
    op.create_index(op.f("schedules_next_slot_idx"), "schedules", ["next_slot"], schema=schema)
    op.create_index(op.f("schedules_fleet_idx"), "schedules", ["fleet", "release"], schema=schema)
    op.create_table(
        "schedule_releases",
        sa.Column("fleet", sa.Text(), nullable=False),
        sa.Column("release", sa.Text(), nullable=False),
        sa.Column("first_seen", time, server_default=sa.text("now()"), nullable=False),
        sa.Column("seen_at", time, server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("fleet", "release", name=op.f("schedule_releases_pkey")),
        schema=schema,
    )


def downgrade() -> None:
    """Undo. Schedules begin anew afterwards, and pauses are forgotten."""
    schema = op.get_context().version_table_schema
    op.drop_table("schedule_releases", schema=schema)
    op.drop_table("schedules", schema=schema)
