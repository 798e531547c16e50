"""Runs a server program on a free port until its owner ends. Knows neither PostgreSQL nor Valkey."""

import os
import pwd
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import IO

from arqonce.embedded.errors import EmbeddedServerError
from arqonce.embedded.process import StopSteps, start_process, stop_process

_START_LIMIT = timedelta(seconds=30)
"""Longest wait for a server to respond: enough for the crash recovery of a small database."""

_START_ATTEMPTS = 5
"""Attempts, each with a new port: another program may take the port before the server binds it."""

_POLL = timedelta(milliseconds=5)
"""Interval of checks whether a starting server is ready: a warm start takes 30 to 50 ms."""

_PASSING_TROUBLES = ("Address already in use", "is still in use")
"""Log messages after which another attempt may succeed: the port is taken, or a killed server's backends still end."""


@dataclass(frozen=True, kw_only=True)
class Program:
    """How to run a server: the command for a port, and the check whether a process id answers on a port."""

    name: str
    command: Callable[[int], Sequence[str]]
    answers: Callable[[int, int], bool]
    log_path: Path
    stop_steps: StopSteps
    account: pwd.struct_passwd | None = None


@dataclass(frozen=True, kw_only=True)
class Server:
    """A running server that we own."""

    url: str
    log_path: Path
    process: subprocess.Popen[bytes]
    stop_steps: StopSteps

    @property
    def pid(self) -> int:
        """The process id of the server."""
        return self.process.pid

    def stop(self) -> None:
        """Shut the server down; do nothing if it has ended."""
        stop_process(self.process, self.stop_steps)

    def kill(self) -> None:
        """End the server and all its processes as in a crash, without cleanup; do nothing if it has ended."""
        stop_process(self.process, self.stop_steps[1:])


@contextmanager
def run_program(program: Program, settings: Mapping[str, str]) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Yield the process once it responds, and its port. Stop it at the end.

    The port is that of ``settings``, else the one of the run before if it is free, else a new one.

    Raises:
        EmbeddedServerError: it ended or did not respond in time; the text contains the end of its log.
    """
    # The kernel signals an owner's death when the forking thread ends, so a thread that lasts must fork.
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix=program.name) as owner:
        process, port = _start(program, settings, owner)
        try:
            yield process, port
        finally:
            stop_process(process, program.stop_steps)


def ask(port: int, question: bytes, *, size: int = -1) -> bytes:
    """Send bytes to a local port; return up to ``size`` bytes of the response, or all; nothing on a failure."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(question)
            with connection.makefile("rb") as answer:
                return answer.read(size)
    except OSError:
        return b""


def open_private(path: Path) -> IO[bytes]:
    """Create or truncate a file that only its owner can read."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")


class _PassingTroubleError(EmbeddedServerError):
    """The server ended for a reason that may not recur at the next attempt."""


def _start(
    program: Program, settings: Mapping[str, str], owner: ThreadPoolExecutor
) -> tuple[subprocess.Popen[bytes], int]:
    if "port" not in settings and (former := _former_port(_port_file(program))):
        with suppress(_PassingTroubleError):
            return _start_once(program, former, owner)
    for _ in range(_START_ATTEMPTS - 1):
        with suppress(_PassingTroubleError):
            return _start_anywhere(program, settings, owner)
    return _start_anywhere(program, settings, owner)


def _start_anywhere(
    program: Program, settings: Mapping[str, str], owner: ThreadPoolExecutor
) -> tuple[subprocess.Popen[bytes], int]:
    process, port = _start_once(program, int(settings.get("port") or free_port()), owner)
    if "port" not in settings:
        _port_file(program).write_text(str(port))
    return process, port


def _port_file(program: Program) -> Path:
    return program.log_path.with_name("port")


def _former_port(file: Path) -> int | None:
    """Return the port of the run before, if there was one and nothing listens there."""
    try:
        port = int(file.read_text())
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of that run may linger
            probe.bind(("127.0.0.1", port))
    except (OSError, ValueError, OverflowError):
        return None
    return port


def _start_once(program: Program, port: int, owner: ThreadPoolExecutor) -> tuple[subprocess.Popen[bytes], int]:
    process = owner.submit(_launch, program, port).result()
    try:
        _wait_until_it_answers(program, process, port)
    except BaseException:
        stop_process(process, program.stop_steps)
        raise
    return process, port


def _launch(program: Program, port: int) -> subprocess.Popen[bytes]:
    """Start the server. At its owner's death it gets the first stop signal. Its log contains only this run."""
    death_signal = program.stop_steps[0][0]
    with open_private(program.log_path) as log:
        return start_process(program.command(port), account=program.account, output=log, death_signal=death_signal)


def _wait_until_it_answers(program: Program, process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + _START_LIMIT.total_seconds()
    while not program.answers(process.pid, port):
        if process.poll() is not None:
            raise _failure(program, f"ended with code {process.returncode} instead of starting")
        if time.monotonic() > deadline:
            raise _failure(program, f"did not answer on port {port} within {_START_LIMIT.total_seconds():.0f} s")
        time.sleep(_POLL.total_seconds())


def _failure(program: Program, what: str) -> EmbeddedServerError:
    log = program.log_path.read_text(errors="replace")
    kind = _PassingTroubleError if any(trouble in log for trouble in _PASSING_TROUBLES) else EmbeddedServerError
    return kind(
        f"{program.name} {what}. The end of {program.log_path}:\n"
        + "\n".join(log.splitlines()[-20:])
        + "\nCure: correct what the log complains about (a setting, the disk, the port); if it is the data, remove "
        f"{program.log_path.parent} and with it all stored data."
    )


def free_port() -> int:
    """Return a loopback port on which nothing listens at present."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
