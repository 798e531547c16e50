"""Puts the commands together."""

import sys
from collections.abc import Callable

import typer

from jobs.extensions import load_registry
from jobs.registry import REGISTRY, Registry
from worker.commands.dead import build_dead_app
from worker.commands.demo import demo
from worker.commands.dev import dev
from worker.commands.ends import ExitCode, explained
from worker.commands.enqueue import build_enqueue_app
from worker.commands.health import health
from worker.commands.import_people import import_
from worker.commands.migrate import migrate
from worker.commands.new_job import new_job
from worker.commands.relay import relay
from worker.commands.run import run
from worker.commands.schema import schema
from worker.commands.status import status
from worker.settings import WorkerSettings

_HELP = f"""A background worker: arq on the wire, users in PostgreSQL.

Servers come from DATABASE_URL and REDIS_URL; `dev` starts its own.

Exit codes: {", ".join(f"{code.value} {code.name.lower()}" for code in ExitCode)}.
"""

_COMMANDS: dict[str, Callable[..., None]] = {
    "run": run,
    "relay": relay,
    "migrate": migrate,
    "status": status,
    "health": health,
    "import": import_,
    "new-job": new_job,
    "dev": dev,
    "demo": demo,
    "schema": schema,
}


def run_app() -> None:
    """Run the command that the process was started with, and exit with its code."""
    app = typer.Typer(
        name="users-worker", help=_HELP, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
    )
    for name, command in _COMMANDS.items():
        app.command(name)(command)
    with explained():
        app.add_typer(build_enqueue_app(_registry()), name="enqueue")
        app.add_typer(build_dead_app(), name="dead")
        app()


def _registry() -> Registry:
    """Return the jobs that can be enqueued; other commands work, and explain themselves, whatever WORKER_* say."""
    return load_registry(WorkerSettings.load().registry) if sys.argv[1:2] == ["enqueue"] else REGISTRY
