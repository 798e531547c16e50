"""A private environment for demo and development: embedded servers, migrated, and a real worker process."""

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
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
"""Longest time until a process has stopped, of a worker after its grace period; it ends by itself after 10 s."""


@dataclass(frozen=True)
class Sandbox:
    """Running servers with migrated tables."""

    servers: Servers
    directory: Path
    module: str
    """The Python module that starts the worker process."""

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
        settings = {"WORKER_HEALTH_FILE": str(health)}
        patience = WorkerSettings.load().shutdown_grace + _STOP_LIMIT
        with self.open_process(
            self.module, "run", settings=settings, instead_of="WORKER_HEALTH_FILE", log=log, patience=patience
        ) as worker:
            _wait_until_ready(worker, health)
            yield worker

    @contextmanager
    def open_process(
        self,
        module: str,
        *arguments: str,
        settings: Mapping[str, str],
        instead_of: str,
        log: IO[bytes] | None = None,
        patience: timedelta = _STOP_LIMIT,
    ) -> Iterator["subprocess.Popen[bytes]"]:
        """Start ``python -m module`` on the servers, and stop it at the end. It logs to ``log`` or the terminal.

        Its environment is this process's, with these settings instead of all that begin with ``instead_of``. It is
        killed if it has not stopped after ``patience``.
        """
        urls = {"DATABASE_URL": self.servers.database_url, "REDIS_URL": self.servers.redis_url}
        others = {name: value for name, value in os.environ.items() if not name.startswith(instead_of)}
        # In a new session: Ctrl-C reaches only this process, which stops all others in the right order.
        process = subprocess.Popen(  # noqa: S603 - a fixed command
            [*module_command(module), *arguments],
            env=others | urls | dict(settings),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=die_with(os.getpid(), signal.SIGTERM),  # noqa: PLW1509 - two system calls that take no lock
        )
        try:
            yield process
        finally:
            _stop(process, patience)


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


def _stop(process: "subprocess.Popen[bytes]", patience: timedelta) -> None:
    process.terminate()
    try:
        process.wait(patience.total_seconds())
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
