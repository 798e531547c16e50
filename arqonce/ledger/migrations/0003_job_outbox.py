"""Jobs that are promised in a transaction, and answers that are refusals."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Apply."""
    op.execute(sa.schema.CreateSequence(sa.Sequence("job_dispatch_epoch")))
    op.create_table(
        "job_outbox",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("job_name", sa.Text(), nullable=False),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("message", sa.LargeBinary(), nullable=False),
        sa.Column("request_hash", sa.LargeBinary(), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("give_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("epoch", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("dispatched_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("dispatches", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.CheckConstraint("octet_length(message) <= 1048576", name=op.f("job_outbox_message_size_check")),
        sa.PrimaryKeyConstraint("job_id", name=op.f("job_outbox_pkey")),
    )
    op.create_index(op.f("job_outbox_queue_idx"), "job_outbox", ["queue", "give_at"])
    op.create_index(
        "job_outbox_epoch_idx", "job_outbox", ["queue", "epoch"], postgresql_where=sa.text("dispatched_at IS NOT NULL")
    )
    op.add_column("dead_jobs", sa.Column("request_hash", sa.LargeBinary(), nullable=True))
    op.add_column("dead_jobs", sa.Column("queue", sa.Text(), nullable=True))
    op.add_column("job_receipts", sa.Column("failure", postgresql.JSONB(), nullable=True))
    op.alter_column("job_receipts", "result", nullable=True)
    op.create_check_constraint(
        op.f("job_receipts_one_answer_check"), "job_receipts", "num_nonnulls(result, failure) = 1"
    )


def downgrade() -> None:
    """Undo. What the older version cannot hold is lost: promised jobs, and the records of refusals."""
    op.drop_constraint(op.f("job_receipts_one_answer_check"), "job_receipts")
    op.execute("DELETE FROM job_receipts WHERE result IS NULL")
    op.alter_column("job_receipts", "result", nullable=False)
    op.drop_column("job_receipts", "failure")
    op.drop_column("dead_jobs", "queue")
    op.drop_column("dead_jobs", "request_hash")
    op.drop_table("job_outbox")
    op.execute(sa.schema.DropSequence(sa.Sequence("job_dispatch_epoch")))
