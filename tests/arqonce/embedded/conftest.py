"""A directory whose servers most tests share, and owners in processes of their own, which tests may kill."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from arqonce.embedded.account import unprivileged_account
from arqonce.embedded.process import _command_of

_LIMIT = 15.0
"""Longest wait, in seconds, for a state that a test waits for."""

WaitUntil = Callable[[Callable[[], bool]], None]
StartOwner = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture(scope="session")
def directory() -> Iterator[Path]:
    """Make the directory of this run: its database cluster is made once, each test starts servers on it."""
    yield from _make_open_directory()


@pytest.fixture
def new_directory() -> Iterator[Path]:
    """Make a directory for one test. Every user may enter it, unlike pytest's ``tmp_path`` when root runs pytest."""
    yield from _make_open_directory()


def _make_open_directory() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="embedded-tests-"))
    directory.chmod(0o711)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def start_owner() -> Iterator[StartOwner]:
    """Return the function that runs Python code in another process; what still runs at the end is killed."""
    owners: list[subprocess.Popen[str]] = []

    def start(code: str) -> "subprocess.Popen[str]":
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
        command = [sys.executable, "-c", f"from pathlib import Path\nimport sys, time\n{code}"]
        owners.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
        return owners[-1]

    yield start
    for owner in owners:
        owner.kill()
        owner.communicate()


@pytest.fixture
def stranger() -> Iterator["subprocess.Popen[bytes]"]:
    """Start a process of the servers' user that has nothing to do with them."""
    account = unprivileged_account()
    process = subprocess.Popen(["/bin/sleep", "60"], user=account.pw_uid if account else None)
    yield process
    process.kill()
    process.wait()


@pytest.fixture(scope="session")
def wait_until() -> WaitUntil:
    """Return the function that waits for a state, with a bound."""

    def wait(state: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _LIMIT
        while not state():
            assert time.monotonic() < deadline, "the state did not come in time"
            time.sleep(0.005)

    return wait


@pytest.fixture(scope="session")
def is_running() -> Callable[[int], bool]:
    """Return the function that tells whether a process runs; one that ended and was not waited for does not."""
    return lambda pid: _command_of(pid) != ""
