"""Real worker processes, and a supervisor that restarts them and judges how each has ended. Knows no job."""

import asyncio
import atexit
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from random import Random
from typing import Self

from arqonce.embedded.process import die_with
from arqonce.testing.programs import WARM, Process, Programs

_LOOK = 0.02
"""Interval of checks of a process, in seconds."""

_STOP_LIMIT = 25.0
"""Seconds that a worker may take to end after SIGTERM: its grace period, and more if a server is unreachable."""

_PAUSE = 0.2
"""Seconds before the next start of a worker that could not start."""

_CANNOT_START = 4
"""Exit code of a worker that cannot reach a server when it starts."""

_TOLD_TO_STOP = {0, -signal.SIGTERM, 128 + signal.SIGINT}
"""Exit codes of a worker on SIGTERM; the last two only before it is ready."""


_WARM = "CHAOS_WARM_STARTS"
"""Environment variable of tests: fork workers, of which they start hundreds, from a process that has loaded all."""


@cache
def _programs() -> Programs:
    opened = Programs()
    atexit.register(opened.close)
    return opened


def _fork(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Process:
    _, _, module, *arguments = command
    return _programs().start(module, *arguments, environment=environment, output=log, loads=WARM["arqonce"])


class WorkerProcess:
    """One worker process from start to end."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self._health = log.with_suffix(".health")
        self._log = log.open("ab")
        self._signals: dict[int, float] = {}
        self._was_ready = False
        variables = {**environment, "WORKER_HEALTH_FILE": str(self._health)}
        self.process = _fork(command, variables, log) if _WARM in os.environ else self._start(command, variables)

    def _start(self, command: Sequence[str], environment: Mapping[str, str]) -> Process:
        return subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
            preexec_fn=die_with(os.getpid(), signal.SIGKILL),  # noqa: PLW1509 - makes two system calls, takes no lock
        )

    @property
    def is_ready(self) -> bool:
        """Whether the worker has been ready."""
        self._was_ready = self._was_ready or self._health.exists()
        return self._was_ready

    @property
    def is_hit(self) -> bool:
        """Whether it was sent SIGKILL or SIGTERM."""
        return bool(self._signals.keys() & {signal.SIGKILL, signal.SIGTERM})

    def send(self, number: signal.Signals) -> None:
        """Send a signal and remember it."""
        self._signals.setdefault(number, time.monotonic())
        self.process.send_signal(number)

    def end(self) -> None:
        """Kill the process if it runs, and close its log."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._log.close()

    async def outcome(self) -> str:
        """Wait for the end and describe it: a short name for an injected fault, a full description otherwise."""
        while self.process.poll() is None:
            _ = self.is_ready
            if time.monotonic() - self._signals.get(signal.SIGTERM, float("inf")) > _STOP_LIMIT:
                self.send(signal.SIGKILL)
                return f"hung for {_STOP_LIMIT:g} s after SIGTERM: {self._log.name}"
            await asyncio.sleep(_LOOK)
        code = self.process.returncode
        if code == -signal.SIGKILL and signal.SIGKILL in self._signals:
            return "killed"
        if signal.SIGTERM in self._signals and (code == 0 or (code in _TOLD_TO_STOP and not self.is_ready)):
            return "stopped"
        if code == _CANNOT_START and not self.is_ready:
            return "could not start"
        return f"exit code {code} for no reason of ours: {self._log.name}"


class Fleet:
    """Workers that are restarted whenever they end."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], logs: Path, size: int) -> None:
        self._command, self._environment, self._logs = command, environment, logs
        self._workers: dict[int, WorkerProcess] = {}
        self._is_stopping = False
        self.size = size
        self.ends: Counter[str] = Counter()
        """Descriptions of how processes have ended, counted."""

    @classmethod
    @contextmanager
    def open(cls, command: Sequence[str], environment: Mapping[str, str], logs: Path, *, size: int) -> Iterator[Self]:
        """Yield a fleet that ``run`` starts. At the end all its processes are killed."""
        everything = os.environ | dict(environment) | {"PYTHONPATH": str(Path(__file__).parent.parent)}
        fleet = cls(command, everything, logs, size)
        try:
            yield fleet
        finally:
            for worker in fleet._workers.values():
                worker.end()

    async def run(self) -> None:
        """Supervise until ``stop``."""
        await asyncio.gather(*(self._keep_running(slot) for slot in range(self.size)))

    async def wait_until_ready(self) -> None:
        """Wait until all workers are ready."""
        while len(self.ready) < self.size:
            await asyncio.sleep(_LOOK)

    @property
    def ready(self) -> list[WorkerProcess]:
        """The workers that are ready and were not sent SIGKILL or SIGTERM."""
        return [
            worker
            for worker in self._workers.values()
            if worker.process.poll() is None and worker.is_ready and not worker.is_hit
        ]

    def pick(self, random: Random) -> WorkerProcess | None:
        """Choose a ready worker; ``None`` if there is none at present."""
        return random.choice(ready) if (ready := self.ready) else None

    def stop(self) -> None:
        """Send SIGTERM to all workers, and restart none any more."""
        self._is_stopping = True
        for worker in self._workers.values():
            if worker.process.poll() is None:
                with suppress(ProcessLookupError):
                    worker.send(signal.SIGTERM)

    async def _keep_running(self, slot: int) -> None:
        number = 0
        while not self._is_stopping:
            log = self._logs / f"worker-{slot}-{number:03}.log"
            worker = self._workers[slot] = WorkerProcess(self._command, self._environment, log)
            ended = await worker.outcome()
            worker.end()
            self.ends[ended] += 1
            number += 1
            await asyncio.sleep(_PAUSE if ended == "could not start" else 0)


OURS = (sys.executable, "-m", "worker", "run")
"""The command of our worker."""

FUNCTIONS = ("--settings", "chaos.functions.WorkerSettings")
"""Options with which it also runs an arq service."""
