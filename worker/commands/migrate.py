"""``users-worker migrate``: brings the database's tables up to date."""

from typing import Annotated

import typer
from rich.console import Console
from sqlalchemy.exc import SQLAlchemyError

from db.migrate import upgrade_schema
from db.settings import DatabaseSettings
from worker.lifecycle import StartupError, explain_database


def migrate(*, revision: Annotated[str, typer.Option(help="Migrate only up to this revision.")] = "head") -> None:
    """Apply the migrations that DATABASE_URL lacks. Safe to run twice, and by several at once.

    Workers never migrate by themselves: run this once for each deploy, before they start.
    """
    settings = DatabaseSettings.load()
    try:
        upgrade_schema(settings, revision)
    except (SQLAlchemyError, OSError) as error:
        raise StartupError(explain_database(error, settings)) from error
    Console(soft_wrap=True).print(f"{settings.location} is up to date")
