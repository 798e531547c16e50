"""Gives each stored e-mail address the one form that addresses have since (``jobs/fields.py``).

Addresses that would become equal to another one's are left as they are, and told by their ids: which of two people is
the one, and what becomes of the other, is for a person to decide.
"""

import sys
import unicodedata
from collections.abc import Sequence

import idna
import sqlalchemy as sa
from alembic import op

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_CANDIDATES = sa.text(r"SELECT id, email FROM users WHERE email ~ '[^\x01-\x7f]' OR email LIKE '%xn--%' ORDER BY id")
_IS_TAKEN = sa.text("SELECT id FROM users WHERE email = :email AND id <> :id")
_CHANGE = sa.text("UPDATE users SET email = :email WHERE id = :id")
_UNSEEN = {"Zs", "Zl", "Zp", "Cf", "Cc", "Cs", "Co", "Cn"}
_BLANK = "\u115f\u1160\u2800\u3164\uffa0"
"""Categories and characters that nobody can see. Addresses that have one are refused since."""

_TOLD = 20
"""Most ids that one line shows."""


def upgrade() -> None:
    """Apply."""
    context = op.get_context()
    if context.as_sql:
        return  # it reads what is stored
    connection = op.get_bind()
    equal: list[str] = []
    unreadable: list[str] = []
    for row in connection.execute(_CANDIDATES).all():
        normal = _normal(row.email)
        if normal is None:
            unreadable.append(str(row.id))
        elif normal != row.email:
            other = connection.execute(_IS_TAKEN, {"email": normal, "id": row.id}).scalar()
            if other is None:
                connection.execute(_CHANGE, {"email": normal, "id": row.id})
            else:
                equal.append(f"{row.id} and {other}")
    _tell("users have the same e-mail address in two forms, and are left as they are", equal)
    _tell("users have an e-mail address that is refused since, and are left as they are", unreadable)


def _tell(what: str, found: Sequence[str]) -> None:
    if found:
        shown = ", ".join(found[:_TOLD]) + (", ..." if len(found) > _TOLD else "")
        sys.stderr.write(f"{len(found)} {what}: ids {shown}\n")


def _normal(email: str) -> str | None:
    """Return the form of this revision; ``None`` if there is none. A copy: later rules are later migrations'."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", email).lower())
    if any(character in _BLANK or unicodedata.category(character) in _UNSEEN for character in folded):
        return None
    local, at, domain = folded.partition("@")
    try:
        domain = domain if domain.isascii() and "xn--" not in domain else idna.decode(idna.encode(domain, uts46=True))
    except (idna.IDNAError, UnicodeError):
        return None
    return f"{local}{at}{domain}"


def downgrade() -> None:
    """Undo nothing: the other form of an address is not known any more."""
