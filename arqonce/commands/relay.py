"""``relay``: runs the relay in the foreground, without a worker."""

from contextlib import suppress

import typer

from arqonce.application import Application
from arqonce.process.relay import run_relay
from arqonce.settings.worker import Settings


def relay(context: typer.Context) -> None:
    """Write promised jobs into Redis until SIGTERM or Ctrl-C; a second signal ends it at once.

    Every worker also runs a relay; any number may run at once. The queue's workers must be of this library (`run`, or
    `arq worker.WorkerSettings`): plain arq workers do not record that a job has ended, so it would be written again and
    again. Takes the settings of `run`. It promises the slots of the schedules of its registry and of WORKER_REGISTRY;
    without a registry it promises none, and the workers do.
    """
    # A signal during startup: nothing was taken from the outbox yet, so this is an orderly end.
    with suppress(KeyboardInterrupt):
        application: Application = context.obj
        run_relay(Settings.load(application.name), application.registry)
