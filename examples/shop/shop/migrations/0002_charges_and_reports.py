"""Charges and reports."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Apply. Workers of the version before may go on: what they store has defaults."""
    op.add_column("orders", sa.Column("cents", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("orders", sa.Column("charge", sa.Text(), nullable=True))
    op.create_table(
        "reports",
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("orders", sa.BigInteger(), nullable=False),
        sa.Column("cents", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("day", name=op.f("reports_pkey")),
    )


def downgrade() -> None:
    """Undo."""
    op.drop_table("reports")
    op.drop_column("orders", "charge")
    op.drop_column("orders", "cents")
