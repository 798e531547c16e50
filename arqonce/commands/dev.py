"""``dev``: runs servers and a worker for development, until Ctrl-C."""

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from arqonce.application import Application
from arqonce.commands.program import program
from arqonce.commands.sandbox import open_sandbox
from arqonce.database.schema import revisions

DataDirectory = Annotated[Path, typer.Option("--data", help="Directory of the servers' data.")]


def dev(context: typer.Context, *, data: DataDirectory = Path(".data/dev")) -> None:
    """Run PostgreSQL, Valkey and a worker in the foreground until Ctrl-C. Data is kept for the next run.

    Prints the two URLs that other programs need: export them in another terminal.
    """
    application: Application = context.obj
    with open_sandbox(data.absolute(), application) as sandbox:
        typer.echo(f"export DATABASE_URL='{sandbox.servers.database_url}'")
        typer.echo(f"export REDIS_URL='{sandbox.servers.redis_url}'")
        for schema in [schema for schema in application.registry.schemas if not revisions(schema)]:
            typer.echo(f"{schema.name} has no migrations yet: write the first with alembic revision --autogenerate")
        with sandbox.open_worker() as worker, suppress(KeyboardInterrupt):
            typer.echo("a worker is running; Ctrl-C stops everything")
            typer.echo(f"next, in another terminal: paste the two lines, then {program()} enqueue --help")
            worker.wait()
    if worker.returncode:
        raise typer.Exit(worker.returncode)
