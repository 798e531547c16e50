"""The PostgreSQL schema in which the ledger's tables lie: its name, and SQL texts for another one. Knows no driver.

Every text names the schema. None relies on ``search_path``, in which a service may have tables of the same names.
"""

import re
from functools import lru_cache

LEDGER = "arqonce"
"""Where the tables lie unless DATABASE_LEDGER_SCHEMA names another schema. SQL texts are written for this one."""

_NAME = re.compile(r"[a-z_][a-z0-9_]{0,39}")

_NOT_OURS = re.compile(r"public|information_schema|pg_.*")
"""``public`` belongs to everybody, and had tables of ours under other names; the others belong to PostgreSQL."""

_QUALIFIED = re.compile(rf"\b{LEDGER}\.(?=[a-z])")


def require_namespace(name: str) -> str:
    """Return the name if the ledger's schema may have it.

    Raises:
        ValueError: it may not; the text says which names are taken.
    """
    if not _NAME.fullmatch(name) or _NOT_OURS.fullmatch(name):
        raise ValueError(
            f"the schema's name {name!r:.60} must be 1 to 40 of a-z, 0-9 and _, not begin with a digit or pg_, "
            "and be neither public nor information_schema"
        )
    return name


@lru_cache(maxsize=100)
def in_namespace(statement: str, name: str) -> str:
    """Return an SQL text of ours for the schema ``name``; the text itself for the default one.

    Raises:
        ValueError: no schema of the ledger may have that name.
    """
    if name == LEDGER:
        return statement
    return _QUALIFIED.sub(f'"{require_namespace(name)}".', statement)
