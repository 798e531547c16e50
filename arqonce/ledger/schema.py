"""Which tables and migrations the ledger has, and how a database gets them and those of projects."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from arqonce.database.migrate import upgrade_schema
from arqonce.database.schema import Schema
from arqonce.database.settings import DatabaseSettings
from arqonce.ledger.tables import Base
from arqonce.namespace import LEDGER as DEFAULT

LEDGER = Schema(
    "arqonce",
    Base.metadata,
    Path(__file__).parent / "migrations",
    version_table="ledger_version",  # not alembic_version: a role may be called as the schema, which it then sees first
    namespace=DEFAULT,
)
"""The library's own."""


def ledger_of(settings: DatabaseSettings) -> Schema:
    """Return the ledger's schema where the settings say that it lies."""
    return replace(LEDGER, namespace=settings.ledger_schema)


def upgrade_schemas(settings: DatabaseSettings, schemas: Iterable[Schema] = ()) -> dict[str, list[str]]:
    """Apply all migrations, and return by schema which: the ledger's, then those of projects in their order.

    Starts event loops of its own.
    """
    return {schema.name: upgrade_schema(settings, schema) for schema in (ledger_of(settings), *schemas)}
