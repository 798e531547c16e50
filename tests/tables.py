"""All tables of the ledger and of the application, as their metadata names them."""

from sqlalchemy import Table, text

from arqonce.ledger.tables import Base as Ledger
from db.tables import Base as Application

_METADATA = (Application.metadata, Ledger.metadata)

TABLES = [name for metadata in _METADATA for name in metadata.tables]

_SMALL = 1_000_000
"""Bytes of a table up to which its rows are deleted. TRUNCATE makes new files, at a cost of milliseconds for each."""


def _emptied(table: str) -> str:
    small = f"pg_relation_size('{table}') < {_SMALL}"
    emptying = f"IF {small} THEN DELETE FROM {table}; ELSE TRUNCATE {table}; END IF;"  # noqa: S608 - our own tables
    return f"IF EXISTS (SELECT FROM {table}) THEN {emptying} END IF;\n"


def _numbered_anew(table: Table) -> str:
    return "".join(
        f"PERFORM setval(pg_get_serial_sequence('{table.fullname}', '{column.name}'), 1, false);"
        for column in table.columns
        if column.identity is not None or column is table.autoincrement_column
    )


EMPTY_TABLES = text(
    f"""
    DO $$ BEGIN
        LOCK TABLE {", ".join(TABLES)} IN ACCESS EXCLUSIVE MODE;
        {"".join(map(_emptied, TABLES))}
        {"".join(_numbered_anew(table) for metadata in _METADATA for table in metadata.tables.values())}
    END $$
    """
)
"""The lock waits for the last transactions of processes that were killed."""
