"""The units of deploy/systemd: their rights, and their commands as systemd starts them, with a manager that listens."""

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import make_url

from arqonce import DatabaseSettings
from arqonce.environment import read_duration
from arqonce.settings.worker import WorkerSettings
from tests.conftest import wait_until
from web.settings import WebSettings

UNITS = ["users-worker", "users-worker-relay", "users-web", "users-worker-migrate"]
SERVICES = UNITS[:3]
WORST = 15
"""A tenth of this is the highest exposure that a unit may have, of 100."""

READY_LIMIT = 30.0

_BEYOND_THE_GRACE = timedelta(seconds=15)
"""What docs/operations.md asks of every supervisor."""

Unit = Mapping[str, list[str]]


def _read(root: Path, name: str) -> Unit:
    unit: dict[str, list[str]] = defaultdict(list)
    for line in (root / "deploy" / "systemd" / f"{name}.service").read_text().splitlines():
        if found := re.match(r"([A-Za-z]+)=(.*)$", line):
            unit[found[1]].append(found[2])
    return unit


def _analyze(*arguments: str) -> "subprocess.CompletedProcess[str]":
    program = shutil.which("systemd-analyze")
    assert program is not None, "systemd-analyze is not installed: see .ci/packages.txt"
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.usefixtures("starts_processes")
@pytest.mark.parametrize("name", UNITS)
def test_a_unit_has_few_rights(root: Path, name: str) -> None:
    """Systemd's own rating of what a service could do; and it knows every line."""
    unit = str(root / "deploy" / "systemd" / f"{name}.service")

    rated = _analyze("security", "--offline=true", f"--threshold={WORST}", unit)
    verified = _analyze("verify", unit)

    assert rated.returncode == 0, rated.stdout.splitlines()[-1]
    complaints = [line for line in verified.stderr.splitlines() if "/opt/users-worker" not in line]
    assert [line for line in complaints if name in line] == []


@pytest.mark.usefixtures("starts_processes")
def test_a_wrong_unit_would_be_noticed(root: Path, tmp_path: Path) -> None:
    """Without the lines about rights it is rated as unsafe."""
    text = (root / "deploy" / "systemd" / "users-worker.service").read_text()
    bare = tmp_path / "bare.service"
    bare.write_text(re.sub(r"(?m)^(Protect|Private|Restrict|System|Capab|NoNew|Dynamic).*$", "", text))

    assert _analyze("security", "--offline=true", f"--threshold={WORST}", str(bare)).returncode != 0


class Manager:
    """Listens as systemd does on its notify socket."""

    def __init__(self) -> None:
        """Listen in a thread."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.address = f"@arqonce-tests-{os.getpid()}-{id(self)}"
        self._socket.bind("\0" + self.address[1:])
        self._socket.settimeout(0.2)
        self.messages: list[list[str]] = []
        self._is_over = False
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        while not self._is_over:
            try:
                message = self._socket.recv(4096)
            except TimeoutError:
                continue
            self.messages.append(message.decode().splitlines())

    def close(self) -> None:
        """Listen no more."""
        self._is_over = True
        self._thread.join()
        self._socket.close()

    def heard(self, start: str) -> list[str]:
        """Return the lines that begin so."""
        return [line for lines in self.messages for line in lines if line.startswith(start)]


@pytest.fixture
def manager() -> Iterator[Manager]:
    """Yield one."""
    manager = Manager()
    yield manager
    manager.close()


Started = Callable[[str], "subprocess.Popen[bytes]"]


@pytest.fixture
def start_unit(
    root: Path, tmp_path: Path, manager: Manager, database: DatabaseSettings, valkey_url: str
) -> Iterator[Started]:
    """Return a function that starts a unit's command with its environment, its credentials and a notify socket."""
    url = make_url(database.url.get_secret_value())
    secrets = {"database_password": url.password or "", "redis_password": "", "web_tokens": "token-" * 5}
    given = {"DATABASE_URL": url.set(password=None).render_as_string(), "REDIS_URL": valkey_url, "WEB_PORT": "0"}
    processes: list[subprocess.Popen[bytes]] = []

    def start(name: str) -> "subprocess.Popen[bytes]":
        unit = _read(root, name)
        credentials = tmp_path / name
        credentials.mkdir()
        for line in unit["LoadCredential"]:
            secret = line.partition(":")[0]
            if secrets[secret]:
                (credentials / secret).write_text(secrets[secret])
        variables = dict(line.replace("%d", str(credentials)).split("=", 1) for line in unit["Environment"])
        notify = {"NOTIFY_SOCKET": manager.address} if unit["Type"] == ["notify"] else {}
        if unit["WatchdogSec"]:
            notify["WATCHDOG_USEC"] = str(read_duration(unit["WatchdogSec"][0]) // timedelta(microseconds=1))
        with (tmp_path / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                _local(shlex.split(unit["ExecStart"][0])),
                env={"PATH": os.environ["PATH"]} | given | variables | notify,
                cwd=root,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()


def _local(command: list[str]) -> list[str]:
    modules = {"/opt/users-worker/bin/users-worker": "worker", "/opt/users-worker/bin/users-web": "web"}
    return [sys.executable, "-m", modules[command[0]], *command[1:]]


@pytest.mark.usefixtures("starts_processes")
@pytest.mark.parametrize("name", SERVICES)
def test_a_unit_lives_and_ends_as_systemd_expects(
    root: Path, name: str, start_unit: Started, manager: Manager, tmp_path: Path
) -> None:
    """It is ready once it works, says at what, feeds the watchdog, and says how long its end may take."""
    with _running(start_unit(name), manager, tmp_path / f"{name}.log") as process:
        wait_until(lambda: bool(manager.heard("WATCHDOG=1")), READY_LIMIT)
        assert manager.heard("READY=1") == ["READY=1"]
        assert manager.heard("STATUS=") != []
        process.send_signal(signal.SIGTERM)
        code = process.wait(_seconds(_read(root, name)["TimeoutStopSec"][0]))

    assert code == 0
    assert manager.heard("STOPPING=1") == ["STOPPING=1"]
    assert int(manager.heard("EXTEND_TIMEOUT_USEC=")[0].partition("=")[2]) > 0


@pytest.mark.parametrize("name", SERVICES)
def test_a_unit_waits_for_the_default_grace_and_15_s(root: Path, name: str) -> None:
    """Its limit holds where the process cannot ask systemd for more time, as when its start hangs."""
    settings = WebSettings if name == "users-web" else WorkerSettings

    limit = _seconds(_read(root, name)["TimeoutStopSec"][0])

    assert limit == (settings.model_fields["shutdown_grace"].default + _BEYOND_THE_GRACE).total_seconds()


@pytest.mark.usefixtures("starts_processes")
def test_the_migration_ends_by_itself(start_unit: Started, tmp_path: Path) -> None:
    """Also where nothing is left to do."""
    name = "users-worker-migrate"

    assert start_unit(name).wait(READY_LIMIT) == 0, (tmp_path / f"{name}.log").read_text()


@contextmanager
def _running(process: "subprocess.Popen[bytes]", manager: Manager, log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    wait_until(lambda: process.poll() is not None or bool(manager.heard("READY=1")), READY_LIMIT)
    assert process.poll() is None, log.read_text()
    yield process


def _seconds(text: str) -> float:
    return read_duration(text.replace("min", "m")).total_seconds()
