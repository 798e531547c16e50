"""``users-worker run``: the worker in the foreground, as a supervisor starts it."""

from contextlib import suppress
from typing import Annotated

import typer

from worker.process import run_worker
from worker.settings import Settings


def run(
    *,
    burst: Annotated[bool, typer.Option("--burst", help="End when the queue is empty, instead of waiting.")] = False,
) -> None:
    """Run a worker until SIGTERM or Ctrl-C; a second signal ends it at once.

    Settings come from DATABASE_*, REDIS_* and WORKER_* (see the README). On the first signal it claims no more jobs,
    lets running ones end within WORKER_SHUTDOWN_GRACE, and gives the rest back to the queue.
    """
    # Told to stop before the worker was ready to hear it: nothing was claimed, so that is an orderly end as well.
    with suppress(KeyboardInterrupt):
        run_worker(Settings.load(), burst=burst)
