"""Nothing: what 0002 to 0004 made of jobs lies in the ledger's own schema since, with migrations of its own.

A database of the version before is at this revision, and its workers look for it when they start.
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
