"""Starts workers for end-to-end tests: processes as users run them, with an environment and a log."""

import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Protocol
from uuid import uuid4

from arqonce.process.health_file import read_health
from arqonce.testing.programs import Process, Programs, warm_command

_READY_LIMIT = timedelta(seconds=30)
"""How long a worker may take to become ready."""

_POLL = timedelta(milliseconds=10)


class WorkerNotReadyError(AssertionError):
    """A worker has ended before it was ready, or takes too long; the text contains its log."""


class WorkerProcess:
    """A running worker process, as users run it, with its log."""

    def __init__(self, process: Process, log: Path, health: Path) -> None:
        """Wrap a started process."""
        self.process = process
        self.health = health
        self._log = log

    @property
    def log(self) -> str:
        """The process's output so far."""
        return self._log.read_text()

    def stop(self, timeout: float = 30.0) -> int:
        """Send SIGTERM and return the exit code. ``timeout`` is in seconds.

        Raises:
            subprocess.TimeoutExpired: it has not ended by then.
        """
        self.process.terminate()
        return self.process.wait(timeout)

    def kill(self) -> None:
        """Send SIGKILL, unless the process has ended, and wait for its end."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


class StartWorker(Protocol):
    """Starts a worker process and waits until it is ready; keyword arguments are environment variables.

    A worker of ours or of arq is forked from a process that has loaded everything, which saves a second each time.
    Other commands, and environments that change the interpreter's variables, start Python.
    """

    def __call__(self, *command: str, **environment: str) -> WorkerProcess:
        """Start a worker with ``command``, by default that of ``arqonce_module``."""
        ...


@contextmanager
def worker_processes(
    usual: Sequence[str], environment: Mapping[str, str], directory: Path, programs: Programs
) -> Iterator[StartWorker]:
    """Yield a function that starts worker processes with their logs in ``directory``. They are killed at the end.

    ``usual`` is the default command.
    """
    with ExitStack() as stack:

        def start(*command: str, **variables: str) -> WorkerProcess:
            name = uuid4().hex
            health, log = directory / f"{name}.health", directory / f"{name}.log"
            process = _start(
                command or usual, {**environment, "WORKER_HEALTH_FILE": str(health), **variables}, log, programs
            )
            worker = WorkerProcess(process, log, health)
            stack.callback(worker.kill)
            is_in_time = _wait_until(lambda: process.poll() is not None or not read_health(health))
            if not is_in_time or process.poll() is not None:
                raise WorkerNotReadyError(f"the worker is not ready; its log:\n{worker.log}")
            return worker

        yield start


def _start(command: Sequence[str], environment: Mapping[str, str], log: Path, programs: Programs) -> Process:
    if warm := warm_command(command, environment):
        return programs.start(*warm, environment=environment, output=log)
    with log.open("wb") as output:
        return subprocess.Popen(  # noqa: S603 - the test's own command
            command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )


def _wait_until(is_so: Callable[[], bool]) -> bool:
    limit = time.monotonic() + _READY_LIMIT.total_seconds()
    while not is_so():
        if time.monotonic() > limit:
            return False
        time.sleep(_POLL.total_seconds())
    return True
