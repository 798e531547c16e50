"""A private environment for demo and development: embedded servers, migrated, and a real worker process."""

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import IO

from pydantic import SecretStr

from arqonce.application import Application
from arqonce.database.schema import revisions
from arqonce.database.settings import DatabaseSettings
from arqonce.embedded import Servers, open_servers
from arqonce.embedded.process import die_with
from arqonce.invocation import module_command
from arqonce.ledger.schema import upgrade_schemas
from arqonce.process.health_file import read_health
from arqonce.process.startup_errors import StartupError
from arqonce.settings.worker import QueueSettings, WorkerSettings
from arqonce.usage import UsageError

_START_LIMIT = timedelta(seconds=30)
"""Longest time until a worker is ready; it needs about one second."""

_STOP_LIMIT = timedelta(seconds=15)
"""Longest time until a worker has stopped after its grace period; it ends by itself after 10 s."""


@dataclass(frozen=True)
class Sandbox:
    """Running servers with migrated tables."""

    servers: Servers
    directory: Path
    module: str
    """The Python module that starts the worker process."""

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables for a process that uses the servers: this process's, with the URLs replaced."""
        return os.environ | {"DATABASE_URL": self.servers.database_url, "REDIS_URL": self.servers.redis_url}

    @property
    def queue(self) -> QueueSettings:
        """The settings of the queue."""
        return QueueSettings(url=SecretStr(self.servers.redis_url))

    @contextmanager
    def open_worker(self, log: IO[bytes] | None = None) -> Iterator["subprocess.Popen[bytes]"]:
        """Start a worker process, wait until it is ready, and stop it at the end. It logs to ``log`` or the terminal.

        Raises:
            StartupError: the worker ended, or was not ready in time.
        """
        health = self.directory / "worker.health"
        health.unlink(missing_ok=True)
        # In a new session: Ctrl-C reaches only this process, which stops worker and servers in the right order.
        worker = subprocess.Popen(  # noqa: S603 - a fixed command
            [*module_command(self.module), "run"],
            env=self.environment | {"WORKER_HEALTH_FILE": str(health)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=die_with(os.getpid(), signal.SIGTERM),  # noqa: PLW1509 - two system calls that take no lock
        )
        try:
            _wait_until_ready(worker, health)
            yield worker
        finally:
            _stop(worker)


@contextmanager
def open_sandbox(directory: Path, application: Application) -> Iterator[Sandbox]:
    """Start the embedded servers with their data in ``directory`` and migrate; stop them at the end.

    Raises:
        UsageError: the directory cannot be written to.
        EmbeddedServerError: they cannot be started here, or another process uses ``directory``.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=directory).close()
    except OSError as error:
        text = f"--data: {directory} cannot be written to ({error.strerror}): name a folder of your own"
        raise UsageError(text) from None
    with _no_settings_of_others(directory), open_servers(directory) as servers:
        ready = [schema for schema in application.registry.schemas if revisions(schema)]
        upgrade_schemas(DatabaseSettings(url=SecretStr(servers.database_url)), ready)
        yield Sandbox(servers, directory, application.module)


@contextmanager
def _no_settings_of_others(directory: Path) -> Iterator[None]:
    """Hide the caller's settings for other servers: their passwords and limits do not apply to these."""
    kept = dict(os.environ)
    for name in kept:
        if name.startswith(("DATABASE_", "REDIS_")):
            del os.environ[name]
    os.environ["SECRETS_DIR"] = str(directory)  # it holds no secrets; /run/secrets may
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(kept)


def _wait_until_ready(worker: "subprocess.Popen[bytes]", health: Path) -> None:
    limit = time.monotonic() + _START_LIMIT.total_seconds()
    while read_health(health):
        if worker.poll() is not None:
            raise StartupError(f"the worker ended with exit code {worker.returncode}: see its log")
        if time.monotonic() > limit:
            raise StartupError(f"the worker was not ready within {_START_LIMIT.total_seconds():g} s: see its log")
        time.sleep(0.02)


def _stop(worker: "subprocess.Popen[bytes]") -> None:
    worker.terminate()
    try:
        worker.wait((WorkerSettings.load().shutdown_grace + _STOP_LIMIT).total_seconds())
    except subprocess.TimeoutExpired:
        worker.kill()
        worker.wait()
