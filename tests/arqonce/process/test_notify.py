"""What systemd hears of a process. Real sockets; no server is needed."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from arqonce.process.notify import Notifier

BLOCKS = """
import asyncio, time
from datetime import timedelta
from arqonce.process.ending import Ending

async def main():
    ending = Ending(timedelta(seconds=1))
    ending.begin()
    ending.ready(lambda: "at work")
    await asyncio.sleep(0.5)
    print("blocked", flush=True)
    time.sleep(1)
    print("turns", flush=True)
    await asyncio.sleep(0.5)

asyncio.run(main())
"""


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Yield a notify socket in the file system, as systemd has it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        monkeypatch.chdir(tmp_path)
        receiver.bind("notify")
        receiver.settimeout(0)
        yield receiver


def _heard(manager: socket.socket) -> list[str]:
    lines: list[str] = []
    while True:
        try:
            lines += manager.recv(4096).decode().splitlines()
        except BlockingIOError:
            return lines


def test_a_process_takes_the_socket_for_itself(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it starts has no such variables: it could speak for the unit."""
    monkeypatch.setenv("NOTIFY_SOCKET", "notify")
    monkeypatch.setenv("WATCHDOG_USEC", "4000000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))

    notifier = Notifier.take()
    notifier.ready()
    notifier.alive("two\nlines")
    notifier.stopping(timedelta(seconds=20))

    assert _heard(manager) == [
        *("READY=1", "STATUS=two lines", "WATCHDOG=1", "STOPPING=1", "EXTEND_TIMEOUT_USEC=25000000", "STATUS=ending"),
    ]
    assert notifier.every == timedelta(seconds=2)
    assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} & os.environ.keys()


@pytest.mark.parametrize(
    ("usec", "pid", "expected"),
    [("1", "1", None), ("0", "", None), ("often", "", None), ("", "", None), ("1", "", timedelta(microseconds=1))],
)
def test_a_watchdog_for_another_process_is_not_fed(
    monkeypatch: pytest.MonkeyPatch, usec: str, pid: str, expected: timedelta | None
) -> None:
    """The interval is for the process that the variable names."""
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    monkeypatch.setenv("WATCHDOG_PID", pid)

    assert Notifier.take().watchdog == expected


def test_without_a_manager_nothing_is_sent() -> None:
    """Nor does a manager that is gone, or reads nothing, disturb anybody."""
    Notifier().ready()
    Notifier("/nowhere/at/all").alive("well")


@pytest.mark.usefixtures("starts_processes")
def test_a_loop_that_is_blocked_feeds_no_watchdog(manager: socket.socket) -> None:
    """So systemd restarts what hangs."""
    environment = os.environ | {"NOTIFY_SOCKET": "notify", "WATCHDOG_USEC": "100000"}
    environment["PYTHONPATH"] = str(Path(__file__).parents[3])
    with subprocess.Popen([sys.executable, "-c", BLOCKS], env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        before = _heard(manager).count("WATCHDOG=1")
        process.stdout.readline()
        meanwhile = _heard(manager).count("WATCHDOG=1")
        process.wait(20)
        after = _heard(manager).count("WATCHDOG=1")

    assert before > 2
    assert meanwhile <= 1
    assert after > 2
