"""``relay``: the relay in the foreground, without a worker."""

from contextlib import suppress

import typer

from arqonce.process.relay import run_relay
from arqonce.settings.worker import Settings


def relay(context: typer.Context) -> None:
    """Give promised jobs to Redis until SIGTERM or Ctrl-C; a second signal ends it at once.

    Every worker does this as well; any number at once. The workers of the queue must be ours (`run`, or
    `arq worker.WorkerSettings`): others do not record that a job has ended, so that it would be given again and again.
    Settings are those of `run`.
    """
    # Told to stop before it was ready to hear it: nothing was taken, so that is an orderly end as well.
    with suppress(KeyboardInterrupt):
        run_relay(Settings.load(context.obj.name))
