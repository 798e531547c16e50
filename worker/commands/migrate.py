"""``users-worker migrate``: brings the database's tables up to date."""

from typing import Annotated

import typer
from rich.console import Console
from sqlalchemy.exc import SQLAlchemyError

from db.migrate import upgrade_schema, upgrade_schemas
from db.schema import SCHEMA
from db.settings import DatabaseSettings
from jobs.extensions import load_registry
from worker.lifecycle import StartupError, explain_database
from worker.settings import WorkerSettings

_REVISION = "Migrate only up to this revision of ours, and nothing of other projects."


def migrate(*, revision: Annotated[str | None, typer.Option(help=_REVISION)] = None) -> None:
    """Apply the migrations that DATABASE_URL lacks. Safe to run twice, and by several at once.

    After ours come those of the projects that WORKER_REGISTRY names, each noted in a table of its own.

    Workers never migrate by themselves: run this once for each deploy, before they start.
    """
    settings = DatabaseSettings.load()
    registry = load_registry(WorkerSettings.load().registry)
    try:
        if revision is None:
            applied = upgrade_schemas(settings, registry.schemas)
        else:
            applied = {SCHEMA.name: upgrade_schema(settings, revision)}
    except (SQLAlchemyError, OSError) as error:
        raise StartupError(explain_database(error, settings)) from error
    console = Console(soft_wrap=True, highlight=False)
    for schema, revisions in applied.items():
        if revisions:
            console.print(f"{schema}: applied {', '.join(revisions)}")
    console.print(f"{settings.location} is up to date" + (f" with revision {revision}" if revision else ""))
