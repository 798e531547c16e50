"""The name of the PostgreSQL schema of the ledger's tables, and SQL statements for another name. Knows no driver.

Every statement names the schema. None relies on ``search_path``: a service may have tables of the same names there.
"""

import re
from functools import lru_cache

LEDGER = "arqonce"
"""The default schema; DATABASE_LEDGER_SCHEMA overrides it. SQL statements are written for this name."""

_NAME = re.compile(r"[a-z_][a-z0-9_]{0,39}")

_NOT_OURS = re.compile(r"public|information_schema|pg_.*")
"""Names that are not allowed. ``public`` is shared, and had the ledger's tables under other names; the others belong
to PostgreSQL."""

_QUALIFIED = re.compile(rf"\b{LEDGER}\.(?=[a-z])")


def require_namespace(name: str) -> str:
    """Return the name if the ledger's schema may have it.

    Raises:
        ValueError: the name is not allowed; the text gives the rule.
    """
    if not _NAME.fullmatch(name) or _NOT_OURS.fullmatch(name):
        raise ValueError(
            f"the schema's name {name!r:.60} must be 1 to 40 of a-z, 0-9 and _, not begin with a digit or pg_, "
            "and be neither public nor information_schema"
        )
    return name


@lru_cache(maxsize=100)
def in_namespace(statement: str, name: str) -> str:
    """Return an SQL statement of the library for the schema ``name``; unchanged for the default schema.

    Raises:
        ValueError: the ledger's schema may not have that name.
    """
    if name == LEDGER:
        return statement
    return _QUALIFIED.sub(f'"{require_namespace(name)}".', statement)
