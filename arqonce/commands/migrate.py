"""``migrate``: applies the migrations of the database's tables."""

from typing import Annotated

import typer
from sqlalchemy.exc import SQLAlchemyError

from arqonce.application import Application
from arqonce.database.migrate import upgrade_schema
from arqonce.database.settings import DatabaseSettings
from arqonce.ledger.schema import upgrade_schemas
from arqonce.process.startup_errors import StartupError, explain_database
from arqonce.usage import UsageError

_REVISION = "Migrate only the application's own tables, and only up to this revision."


def migrate(context: typer.Context, *, revision: Annotated[str | None, typer.Option(help=_REVISION)] = None) -> None:
    """Apply the missing migrations to the database of DATABASE_URL. Safe to run twice, and several times at once.

    The ledger's migrations come first, then the application's, then those of the projects that WORKER_REGISTRY names.

    Workers never migrate by themselves: run this once for each deploy, before they start.
    """
    settings = DatabaseSettings.load()
    application: Application = context.obj
    schemas = application.registry.schemas
    try:
        if revision is not None and not schemas:
            raise UsageError(f"{application.name} has no tables of its own: omit --revision")
        if revision is None:
            applied = upgrade_schemas(settings, schemas)
        else:
            applied = {schemas[0].name: upgrade_schema(settings, schemas[0], revision)}
    except (SQLAlchemyError, OSError) as error:
        raise StartupError(explain_database(error, settings)) from error
    for schema, revisions in applied.items():
        if revisions:
            typer.echo(f"{schema}: applied {', '.join(revisions)}")
    typer.echo(f"{settings.location} is up to date" + (f" with revision {revision}" if revision else ""))
