"""``migrate``: applies the migrations of the database's tables."""

import asyncio
from datetime import timedelta
from typing import Annotated

import typer
from sqlalchemy.exc import SQLAlchemyError

from arqonce.application import Application
from arqonce.database.engine import open_database
from arqonce.database.migrate import upgrade_schema
from arqonce.database.settings import DatabaseSettings
from arqonce.ledger.schema import upgrade_schemas
from arqonce.process.housekeeping import sweep
from arqonce.process.startup_errors import StartupError, explain_database
from arqonce.settings.worker import WorkerSettings
from arqonce.usage import UsageError

_REVISION = "Migrate only the application's own tables, and only up to this revision."


def migrate(context: typer.Context, *, revision: Annotated[str | None, typer.Option(help=_REVISION)] = None) -> None:
    """Apply the missing migrations to the database of DATABASE_URL. Safe to run twice, and several times at once.

    The ledger's migrations come first, then the application's, then those of the projects that WORKER_REGISTRY names.

    Workers never migrate by themselves: run this once for each deploy, before they start. Acts of operators that are
    older than WORKER_KEEP_AUDIT are removed from the audit, which only the owner of its table may do.
    """
    settings = DatabaseSettings.load()
    keep_audit = WorkerSettings.load().keep_audit
    application: Application = context.obj
    removed = 0
    schemas = application.registry.schemas
    try:
        if revision is not None and not schemas:
            raise UsageError(f"{application.name} has no tables of its own: omit --revision")
        if revision is None:
            applied = upgrade_schemas(settings, schemas)
            removed = asyncio.run(_forget_acts(settings, keep_audit))
        else:
            applied = {schemas[0].name: upgrade_schema(settings, schemas[0], revision)}
    except (SQLAlchemyError, OSError) as error:
        raise StartupError(explain_database(error, settings)) from error
    if removed:
        typer.echo(f"removed {removed} acts from the audit that were too old")
    for schema, revisions in applied.items():
        if revisions:
            typer.echo(f"{schema}: applied {', '.join(revisions)}")
    typer.echo(f"{settings.location} is up to date" + (f" with revision {revision}" if revision else ""))


async def _forget_acts(settings: DatabaseSettings, age: timedelta) -> int:
    async with open_database(settings, pool_size=1) as sessions:
        return (await sweep(sessions, {"audit": age}))["audit"]
