"""An index on the audit by person: what one of many has done is found at once.

Revision ID: 0007
Revises: 0006
"""

from collections.abc import Sequence

from alembic import op

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Apply. With a million acts it takes some seconds, in which no act is recorded, and so none is done."""
    op.create_index(op.f("audit_who_idx"), "audit", ["who", "id"], schema=op.get_context().version_table_schema)


def downgrade() -> None:
    """Undo."""
    op.drop_index(op.f("audit_who_idx"), "audit", schema=op.get_context().version_table_schema)
