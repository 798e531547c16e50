"""The ledger's schema, and how to apply its migrations and those of projects to a database."""

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
    version_table="ledger_version",  # not alembic_version: a role named like the schema would see ours first ("$user")
    namespace=DEFAULT,
)
"""The library's own schema."""


def ledger_of(settings: DatabaseSettings) -> Schema:
    """Return the ledger's schema under the name that the settings choose."""
    return replace(LEDGER, namespace=settings.ledger_schema)


def upgrade_schemas(settings: DatabaseSettings, schemas: Iterable[Schema] = ()) -> dict[str, list[str]]:
    """Apply the ledger's migrations, then those of ``schemas`` in order; return the applied revisions by schema.

    Starts its own event loops.
    """
    return {schema.name: upgrade_schema(settings, schema) for schema in (ledger_of(settings), *schemas)}
