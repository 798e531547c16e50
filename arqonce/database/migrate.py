"""Applies migrations with Alembic, which takes 0.3 s to load: only these functions load it."""

from pathlib import Path
from typing import TYPE_CHECKING

from arqonce.database.schema import Schema, revisions
from arqonce.database.settings import DatabaseSettings

if TYPE_CHECKING:
    from alembic.config import Config


_ENVIRONMENT = Path(__file__).parent / "alembic"
"""Alembic's environment, the same for all schemas."""


class UnknownRevisionError(ValueError):
    """A revision was named that this version of the code does not have."""


def upgrade_schema(settings: DatabaseSettings, schema: Schema, revision: str = "head") -> list[str]:
    """Apply the migrations up to ``revision``, and return which; several at once wait for each other.

    Starts an event loop of its own.

    A database that a newer version has migrated is left as it is: after a rollback of the code there is nothing to do.

    Raises:
        UnknownRevisionError: there is no such revision.
        ForeignRevisionError: the version table is another project's.
        OldLedgerError: the database has a ledger of an old version, and not its last migration.
    """
    from alembic import command  # noqa: PLC0415 - see the module's docstring
    from alembic.util import CommandError  # noqa: PLC0415 - see the module's docstring

    known = revisions(schema)
    if not known:
        raise UnknownRevisionError(f"{schema.name} has no migrations: there are no files 0001_*.py in its folder")
    if revision not in {"head", *known}:
        raise UnknownRevisionError(f"there is no revision {revision}: there are {', '.join(known)}")
    config = alembic_config(settings, schema)
    applied: list[str] = config.attributes.setdefault("applied", [])
    try:
        command.upgrade(config, revision)
    except CommandError as error:
        if "Can't locate revision" not in str(error):
            raise
    return applied


def alembic_config(settings: DatabaseSettings, schema: Schema) -> "Config":
    """Return the configuration for Alembic's own commands on this database and these migrations."""
    from alembic.config import Config  # noqa: PLC0415 - see the module's docstring

    config = Config()
    config.set_main_option("script_location", str(_ENVIRONMENT).replace("%", "%%"))
    config.set_main_option("version_locations", str(schema.migrations).replace("%", "%%"))
    config.set_main_option("path_separator", "newline")  # none that a folder's name may have
    config.attributes["database"] = settings
    config.attributes["schema"] = schema
    return config
