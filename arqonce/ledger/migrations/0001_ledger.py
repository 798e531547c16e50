"""Creates the ledger in its own PostgreSQL schema, or moves it there from a database of the previous version.

That version had the tables in ``public``, and their migrations (0002 to 0004) among the application's.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from arqonce.ledger.before import take_over

revision: str = "0001"
down_revision: str | None = None
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Apply."""
    context = op.get_context()
    schema = context.version_table_schema
    assert schema is not None, "the ledger has a schema of its own"  # noqa: S101 - LEDGER says so
    if context.as_sql or not take_over(op.get_bind(), schema):
        _create(schema)


def _create(schema: str) -> None:
    op.create_table(
        "receipts",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("job_name", sa.Text(), nullable=False),
        sa.Column("request_hash", sa.LargeBinary(), nullable=False),
        sa.Column("result", postgresql.JSONB(), nullable=True),
        sa.Column("failure", postgresql.JSONB(), nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("num_nonnulls(result, failure) = 1", name=op.f("receipts_one_answer_check")),
        sa.PrimaryKeyConstraint("job_id", name=op.f("receipts_pkey")),
        schema=schema,
    )
    op.create_index(op.f("receipts_finished_at_idx"), "receipts", ["finished_at"], schema=schema)
    op.execute(sa.schema.CreateSequence(sa.Sequence("dispatch_epoch", schema=schema)))
    op.create_table(
        "outbox",
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
        sa.CheckConstraint("octet_length(message) <= 1048576", name=op.f("outbox_message_size_check")),
        sa.PrimaryKeyConstraint("job_id", name=op.f("outbox_pkey")),
        schema=schema,
    )
    op.create_index(op.f("outbox_queue_idx"), "outbox", ["queue", "give_at"], schema=schema)
    op.create_index(
        "outbox_epoch_idx",
        "outbox",
        ["queue", "epoch"],
        schema=schema,
        postgresql_where=sa.text("dispatched_at IS NOT NULL"),
    )
    op.create_table(
        "dead_jobs",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("job_name", sa.Text(), nullable=True),
        sa.Column("message", sa.LargeBinary(), nullable=False),
        sa.Column("request_hash", sa.LargeBinary(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("explanation", sa.Text(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("sqlstate", sa.Text(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("queue", sa.Text(), nullable=True),
        sa.Column("died_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("job_id", name=op.f("dead_jobs_pkey")),
        schema=schema,
    )
    op.create_index(op.f("dead_jobs_died_at_idx"), "dead_jobs", ["died_at"], schema=schema)


def downgrade() -> None:
    """Undo. Drops all records of jobs. Does not restore the old names of tables moved from the previous version."""
    schema = op.get_context().version_table_schema
    op.execute(
        "DO $$ BEGIN IF EXISTS (SELECT FROM pg_views WHERE schemaname = 'public' AND viewname = 'job_receipts') THEN "
        "DROP VIEW public.job_receipts, public.job_outbox, public.dead_jobs; END IF; END $$"
    )
    for table in ("dead_jobs", "outbox", "receipts"):
        op.drop_table(table, schema=schema)
    op.execute(sa.schema.DropSequence(sa.Sequence("dispatch_epoch", schema=schema)))
