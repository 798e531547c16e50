"""``dev``: runs servers and a worker for development, until Ctrl-C."""

import os
import shlex
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from signal import Signals
from typing import Annotated

import typer

from arqonce.application import Application
from arqonce.commands.dev_console import open_dev_console
from arqonce.commands.program import program
from arqonce.commands.sandbox import open_sandbox
from arqonce.database.schema import revisions
from arqonce.invocation import as_typed, beside
from arqonce.process.startup_errors import StartupError

_LOOK = timedelta(milliseconds=200)
"""Interval of looks whether worker and servers run."""

DataDirectory = Annotated[Path, typer.Option("--data", help="Directory of the servers' data.")]


def dev(context: typer.Context, *, data: DataDirectory = Path(".data/dev")) -> None:
    """Run PostgreSQL, Valkey and a worker in the foreground until Ctrl-C. Data is kept for the next run.

    Prints the settings that other programs need: export them in another terminal. The ports stay the same while they
    are free. If a server or the worker ends, everything is stopped. Where the extra console is installed, the page of
    operators runs as well; its address is printed, with a token that holds for this run.
    """
    application: Application = context.obj
    with open_sandbox(data.absolute(), application) as sandbox:
        typer.echo(f"export DATABASE_URL='{sandbox.servers.database_url}'")
        typer.echo(f"export REDIS_URL='{sandbox.servers.redis_url}'")
        if registry := os.environ.get("WORKER_REGISTRY"):
            typer.echo(f"export WORKER_REGISTRY={shlex.quote(registry)}")
        for schema in [schema for schema in application.registry.schemas if not revisions(schema)]:
            write = f"{beside('alembic')} revision --autogenerate"
            typer.echo(f"{schema.name} has no migrations yet: write the first with {write}")
        with open_dev_console(sandbox) as page, sandbox.open_worker() as worker, suppress(KeyboardInterrupt):
            typer.echo("a worker is running; Ctrl-C stops everything")
            typer.echo(f"next, in another terminal: paste the export lines, then {as_typed(program())} enqueue --help")
            while worker.poll() is None:
                sandbox.servers.require_running()
                if page is not None and (news := page.news()):
                    typer.echo(news)
                time.sleep(_LOOK.total_seconds())
            code = worker.returncode
            how = f"was ended by {Signals(-code).name}" if code < 0 else f"ended with exit code {code}: see its log"
            raise StartupError(f"the worker {how}. Cure: start again; what was stored is kept.")
