"""Gives each stored e-mail address the one form that addresses have since (``jobs/fields.py``).

Addresses that would become equal to another one's are left as they are, and told by their ids: which of two people is
the one, and what becomes of the other, is for a person to decide.
"""

import re
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
_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0").union(
    *(map(chr, selectors) for selectors in (range(0xFE00, 0xFE10), range(0xE0100, 0xE01F0)))
)
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
    folded = _folded(_folded(email))
    local, at, domain = folded.partition("@")
    if any(
        one in _BLANK or unicodedata.category(one) in _UNSEEN for one in local + re.sub("[\u200c\u200d]", "", domain)
    ):
        return None
    local = unicodedata.normalize("NFKC", local.replace("i\u0307", "i")).replace("\u03c2", "\u03c3")
    local = re.sub(r"\u03c3(?![^\W\d_])", "\u03c2", local)
    try:
        if not domain.isascii() or "xn--" in domain:
            domain = idna.decode(idna.encode(domain, uts46=True, std3_rules=True))
    except (idna.IDNAError, UnicodeError):
        return None
    return f"{local}{at}{domain}"


def _folded(email: str) -> str:
    composed = unicodedata.normalize("NFKC", email).replace("\u03a3", "\u03c3")
    return unicodedata.normalize("NFKC", composed.lower())


def downgrade() -> None:
    """Undo nothing: the other form of an address is not known any more."""
