"""``run``: runs one or several workers in the foreground, for a supervisor such as systemd."""

import sys
from contextlib import suppress
from typing import Annotated

import typer

from arqonce.application import Application
from arqonce.process.fleet import SUPERVISED, run_processes
from arqonce.process.worker import run_worker
from arqonce.settings.worker import Settings

_PROCESSES = "Worker processes, restarted when they die; connections to PostgreSQL: N x (WORKER_MAX_JOBS + 3)."


def run(
    context: typer.Context,
    *,
    burst: Annotated[bool, typer.Option("--burst", help="End when the queue is empty, instead of waiting.")] = False,
    processes: Annotated[int, typer.Option("--processes", metavar="N", min=1, max=100, help=_PROCESSES)] = 1,
    supervised: Annotated[bool, typer.Option(SUPERVISED, hidden=True)] = False,
) -> None:
    """Run a worker until SIGTERM, SIGHUP, SIGQUIT or Ctrl-C; a second signal ends it at once.

    Settings come from DATABASE_*, REDIS_* and WORKER_* (see the README). After the first signal it claims no more jobs,
    lets running jobs end within WORKER_SHUTDOWN_GRACE, and puts the rest back into the queue. It exits at most 10 s
    later, with code 5 if something blocked its end.
    """
    application: Application = context.obj
    if processes > 1 and sys.platform == "win32":
        raise typer.BadParameter("needs Linux or macOS", param_hint="--processes")
    # A signal during startup: nothing was claimed yet, so this is an orderly end.
    with suppress(KeyboardInterrupt):
        settings = Settings.load(application.name)
        if supervised:  # its standard input is the supervisor's pipe
            run_worker(settings, application, burst=burst, orders=sys.stdin.fileno())
        elif processes > 1:
            raise typer.Exit(run_processes(settings, application.registry, processes, burst=burst))
        else:
            run_worker(settings, application, burst=burst)
