"""Does nothing: the tables of jobs from 0002 to 0004 have moved to the ledger's schema, which has its own migrations.

Databases of the previous version are at this revision, and its workers check for it when they start.
"""

from collections.abc import Sequence

revision: str = "0004"
down_revision: str | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Apply."""


def downgrade() -> None:
    """Undo."""
