"""Users."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0001"
down_revision: str | None = None
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "users",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("email", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("char_length(name) BETWEEN 1 AND 200", name=op.f("users_name_length_check")),
        sa.CheckConstraint("name = btrim(name)", name=op.f("users_name_trimmed_check")),
        sa.CheckConstraint("char_length(email) BETWEEN 3 AND 254", name=op.f("users_email_length_check")),
        sa.CheckConstraint(
            "email = lower(btrim(email)) AND position('@' IN email) > 1", name=op.f("users_email_normal_check")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("users_pkey")),
        sa.UniqueConstraint("email", name=op.f("users_email_key")),
    )
    op.create_index(op.f("users_name_idx"), "users", ["name", "id"])


def downgrade() -> None:
    """Undo."""
    op.drop_table("users")
