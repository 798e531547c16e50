"""Applies migrations with Alembic. Only these functions import it, because that takes 0.3 s."""

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError

from arqonce.database.faults import sqlstate_of
from arqonce.database.schema import ForeignRevisionError, Schema, SchemaError, revisions, why_no_revisions
from arqonce.database.settings import DatabaseSettings

if TYPE_CHECKING:
    from alembic.config import Config


_ENVIRONMENT = Path(__file__).parent / "alembic"
"""Alembic's environment, the same for all schemas."""


class UnknownRevisionError(ValueError):
    """This version of the code does not have the requested revision."""


def upgrade_schema(settings: DatabaseSettings, schema: Schema, revision: str = "head") -> list[str]:
    """Apply the migrations up to ``revision``, and return them. Concurrent calls wait for each other.

    Starts its own event loop.

    Does not change a database that a newer version has migrated, so that code can be rolled back without its schema.

    Raises:
        UnknownRevisionError: there is no such revision.
        ForeignRevisionError: the version table is another project's.
        SchemaError: the tables' PostgreSQL schema is not there.
        OldLedgerError: the database has a ledger of an old version that lacks that version's last migration.
    """
    from alembic import command  # noqa: PLC0415 - see the module's docstring
    from alembic.util import CommandError  # noqa: PLC0415 - see the module's docstring

    known = revisions(schema)
    if not known:
        raise UnknownRevisionError(f"{schema.name} has no migrations: {why_no_revisions(schema)}")
    if revision not in {"head", *known}:
        raise UnknownRevisionError(f"there is no revision {revision}: there are {', '.join(known)}")
    config = alembic_config(settings, schema)
    applied: list[str] = config.attributes.setdefault("applied", [])
    try:
        command.upgrade(config, revision)
    except CommandError as error:
        if "Can't locate revision" not in str(error):
            raise
    except DBAPIError as error:
        places = sorted({table.schema for table in schema.metadata.tables.values() if table.schema is not None})
        if sqlstate_of(error) == "3F000" and places:
            raise SchemaError(
                f"the migrations of {schema.name} need a PostgreSQL schema that is not there ({', '.join(places)}): "
                f"let the first of them begin with op.execute('CREATE SCHEMA {places[0]}')"
            ) from error
        if sqlstate_of(error) not in _MISFITS:
            raise
        raise ForeignRevisionError(
            f"the migrations of {schema.name} do not fit the tables of the database (SQLSTATE {sqlstate_of(error)}): "
            f"the tables, or what {schema.version_place} says, are another project's. Use another database, or give "
            f"the tables and the version_table of {schema.name} other names"
        ) from error
    return applied


_MISFITS = frozenset({"42P01", "42P07", "42701", "42703", "42704", "42710"})
"""A table, column or other object is not there, or is there already."""


def alembic_config(settings: DatabaseSettings, schema: Schema) -> "Config":
    """Return the configuration for Alembic's own commands on this database and these migrations."""
    from alembic.config import Config  # noqa: PLC0415 - see the module's docstring

    config = Config()
    config.set_main_option("script_location", str(_ENVIRONMENT).replace("%", "%%"))
    config.set_main_option("version_locations", str(schema.migrations).replace("%", "%%"))
    config.set_main_option("path_separator", "newline")  # unlikely in a folder's name
    config.attributes["database"] = settings
    config.attributes["schema"] = schema
    return config
