"""The file for supervisord, run by Debian's own."""

import configparser
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from arqonce import DatabaseSettings
from arqonce.settings.worker import WorkerSettings
from tests.conftest import wait_until

LIMIT = 60.0

pytestmark = pytest.mark.usefixtures("starts_processes")


@pytest.fixture
def supervised(
    root: Path, tmp_path: Path, database: DatabaseSettings, valkey_url: str
) -> Iterator["subprocess.Popen[bytes]"]:
    """Start supervisord with our file, with this machine's paths and servers in it."""
    program = shutil.which("supervisord", path="/usr/bin")
    assert program is not None, "supervisord is not installed: see .ci/packages.txt"
    ours = configparser.RawConfigParser(inline_comment_prefixes=None, comment_prefixes=(";",))
    ours.read(root / "deploy" / "supervisor" / "users-worker.conf")
    section = ours["program:users-worker"]
    section["command"] = section["command"].replace(
        "/opt/users-worker/bin/users-worker", f'"{sys.executable}" -m worker'
    )
    section["environment"] = 'WORKER_LOG_FORMAT="json"'
    section["stdout_logfile"] = str(tmp_path / "worker.log")
    section["directory"] = str(root)
    del section["user"]
    files = {"logfile": str(tmp_path / "supervisord.log"), "pidfile": str(tmp_path / "pid")}
    ours["supervisord"] = {"nodaemon": "true"} | files
    with (tmp_path / "supervisord.conf").open("w") as file:
        ours.write(file)
    url = database.url.get_secret_value()
    process = subprocess.Popen(
        [program, "--configuration", str(tmp_path / "supervisord.conf")],
        env={"PATH": os.environ["PATH"], "DATABASE_URL": url, "REDIS_URL": valkey_url},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    yield process
    process.kill()
    process.wait()


def test_supervisord_starts_restarts_and_stops_a_worker(supervised: "subprocess.Popen[bytes]", tmp_path: Path) -> None:
    """What is killed comes back, though supervisord gives up on others; the end is orderly."""
    log = tmp_path / "worker.log"

    def ready(times: int) -> bool:
        return log.exists() and log.read_text().count('"worker ready"') >= times

    wait_until(lambda: ready(2), LIMIT)
    os.kill(_pid_of_the_worker(tmp_path), signal.SIGKILL)
    wait_until(lambda: ready(4), LIMIT)
    began = time.monotonic()
    supervised.terminate()
    code = supervised.wait(LIMIT)

    assert code == 0
    assert time.monotonic() - began < 25
    assert '"supervisor stopped"' in log.read_text()


def test_supervisord_waits_for_the_default_grace_and_15_s(root: Path) -> None:
    """And some seconds more: the supervisor of the processes reports what it had to kill."""
    ours = configparser.RawConfigParser(comment_prefixes=(";",))
    ours.read(root / "deploy" / "supervisor" / "users-worker.conf")

    limit = timedelta(seconds=ours.getint("program:users-worker", "stopwaitsecs"))

    assert limit > WorkerSettings.model_fields["shutdown_grace"].default + timedelta(seconds=15)


def _pid_of_the_worker(tmp_path: Path) -> int:
    lines = (tmp_path / "supervisord.log").read_text().splitlines()
    spawned = [line for line in lines if "spawned: 'users-worker'" in line]
    return int(spawned[-1].rpartition(" ")[2])
