"""``run``: runs one or several workers in the foreground, for a supervisor such as systemd."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Annotated

import typer

from arqonce.application import Application
from arqonce.arq.service import load_service
from arqonce.environment import SettingsError
from arqonce.process.fleet import SUPERVISED, run_processes, run_service_processes
from arqonce.process.service import ServiceRun, check_service, run_service
from arqonce.process.supervised import Supervised, take_orders
from arqonce.process.worker import run_worker
from arqonce.settings.operations import OperationsSettings
from arqonce.settings.worker import Settings, WorkerSettings

_PROCESSES = "Worker processes, restarted when they die; connections to PostgreSQL: N x (WORKER_MAX_JOBS + 3)."

_SETTINGS = "Run an arq service: its settings class, as for arq's own. PostgreSQL, if given, records how jobs end."
_CHECK = "With --settings: look for the health key of a worker, and end; 0 if it is there."
_PICKLE = "With --settings: accept pickles, arq's default, and answer them so. They can run any code in the worker."


def run(  # noqa: PLR0913 - the command's options
    context: typer.Context,
    *,
    burst: Annotated[bool, typer.Option("--burst", help="End when the queue is empty, instead of waiting.")] = False,
    processes: Annotated[int, typer.Option("--processes", metavar="N", min=1, max=100, help=_PROCESSES)] = 1,
    service: Annotated[str | None, typer.Option("--settings", metavar="MODULE.CLASS", help=_SETTINGS)] = None,
    check: Annotated[bool, typer.Option("--check", help=_CHECK)] = False,
    pickle: Annotated[bool, typer.Option("--pickle", help=_PICKLE)] = False,
    supervised: Annotated[int, typer.Option(SUPERVISED, hidden=True)] = 0,
) -> None:
    """Run a worker until SIGTERM, SIGHUP, SIGQUIT or Ctrl-C; a second signal ends it at once.

    Settings come from DATABASE_*, REDIS_* and WORKER_* (docs/settings.md). After the first signal it claims no more
    jobs, lets running jobs end within WORKER_SHUTDOWN_GRACE, and puts the rest back into the queue. It exits at most
    10 s later, with code 5 if something blocked its end.
    """
    application: Application = context.obj
    if processes > 1 and sys.platform == "win32":
        raise typer.BadParameter("needs Linux or macOS", param_hint="--processes")
    # A signal during startup: nothing was claimed yet, so this is an orderly end.
    with suppress(KeyboardInterrupt), _database_explained(application):
        us = Supervised(number=supervised, orders=take_orders()) if supervised else None
        if service is not None:
            found = application if application.registry.names else None
            code = _run_service(service, found, processes, burst=burst, check=check, pickle=pickle, supervised=us)
            raise typer.Exit(code)
        if check or pickle:
            raise typer.BadParameter("is for --settings", param_hint="--check" if check else "--pickle")
        settings = Settings.load(application.name)
        if processes > 1 and us is None:
            us = _process_of(run_processes(settings, application.registry, processes, burst=burst))
            settings = Settings.load(application.name)  # anew: a secret may be another one when a process is replaced
        run_worker(settings, application, burst=burst, supervised=us)


def _process_of(ended: int | Supervised) -> Supervised:
    """Return what this process is if a supervisor has forked it; if it is the supervisor, end with its exit code."""
    if isinstance(ended, int):
        raise typer.Exit(ended)
    return ended


@contextmanager
def _database_explained(application: Application) -> Iterator[None]:
    """Say who needs a database if none is named."""
    try:
        yield
    except SettingsError as error:
        if not str(error).startswith("DATABASE_URL: is not set"):
            raise
        jobs = application.registry.names
        text = f"PostgreSQL records how the registry's {len(jobs)} jobs, such as {jobs[0]}, end: they need it."
        raise SettingsError(f"{error}\n{text}") from None


def _run_service(  # noqa: PLR0913 - the command's options
    path: str,
    application: Application | None,
    processes: int,
    *,
    burst: bool,
    check: bool,
    pickle: bool,
    supervised: Supervised | None,
) -> int:
    found = load_service(path)
    if check:
        is_well = check_service(found)
        typer.echo("a worker is well" if is_well else "no worker has written its health key", err=not is_well)
        return int(not is_well)
    asked = ServiceRun(
        service=found,
        settings=WorkerSettings.load(),
        application=application,
        burst=burst,
        accepts_pickle=pickle,
        supervised=supervised,
        operations=OperationsSettings.load(),
    )
    if processes > 1 and supervised is None:
        us = _process_of(run_service_processes(asked, processes))
        asked = replace(asked, supervised=us, settings=WorkerSettings.load(), operations=OperationsSettings.load())
    run_service(asked)
    return 0
