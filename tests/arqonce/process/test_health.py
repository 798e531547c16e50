"""The health file. No server is needed."""

import asyncio
import json
import os
import resource
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from arqonce.environment import SettingsError
from arqonce.process.health import ServerError, report_health, report_processes
from arqonce.process.health_file import named_file, process_file, read_health
from arqonce.settings.worker import WorkerSettings
from arqonce.testing.environment import clean_environment


async def _well() -> None:
    pass


async def _ill() -> None:
    raise ConnectionError


async def _silent() -> None:
    await asyncio.sleep(60)


async def test_a_worker_that_reaches_its_servers_is_well(tmp_path: Path) -> None:
    """While it runs; afterwards there is no file and no health."""
    file = tmp_path / "health"

    async with report_health(file, {"Redis": _well, "PostgreSQL": _well}):
        during = read_health(file)

    assert during == []
    assert "there is no health file" in read_health(file)[0]


async def test_a_server_that_answers_and_cannot_be_used_is_named_with_the_reason(tmp_path: Path) -> None:
    """An operator looks for another cause than for a server that is gone."""
    file = tmp_path / "health"

    async def refuse() -> None:
        raise ServerError("cannot be written to: it is a standby")

    async with report_health(file, {"Redis": _well, "PostgreSQL": refuse}):
        problems = read_health(file)

    assert problems == ["PostgreSQL cannot be written to: it is a standby"]


async def test_a_server_that_does_not_answer_is_named(tmp_path: Path) -> None:
    """Refusal and silence alike."""
    file = tmp_path / "health"

    async with report_health(file, {"Redis": _ill, "PostgreSQL": _silent}):
        problems = read_health(file)

    assert problems == ["Redis does not answer the worker", "PostgreSQL does not answer the worker"]


def test_a_worker_that_stopped_reporting_is_ill(tmp_path: Path) -> None:
    """Hanging or killed: the file grows old."""
    file = tmp_path / "health"
    file.write_text(json.dumps({"pid": os.getpid(), "time": time.time() - 60, "servers": {}}))

    assert "has not reported for 60 s" in read_health(file)[0]
    file.write_text(json.dumps({"time": time.time() + 3600, "servers": {}}))
    assert "has not reported since the clock was set back" in read_health(file)[0]


async def test_a_supervisor_is_as_well_as_all_its_processes(tmp_path: Path) -> None:
    """One that is gone, or does not reach a server, is named; so is a supervisor that hangs."""
    file = tmp_path / "health"
    report_processes(file, 2)
    async with (
        report_health(process_file(file, 1), {"Redis": _well}),
        report_health(process_file(file, 2), {"Redis": _well}),
    ):
        well = read_health(file)
        async with report_health(process_file(file, 2), {"Redis": _ill}):
            ill = read_health(file)
        (gone,) = read_health(file)
        file.write_text(json.dumps(json.loads(file.read_text()) | {"time": 0}))
        (hanging,) = read_health(file)

    assert (well, ill) == ([], ["process 2: Redis does not answer the worker"])
    assert gone.startswith("process 2: there is no health file")
    assert "has not reported" in hanging


def test_a_broken_file_is_ill(tmp_path: Path) -> None:
    """Not an exception."""
    file = tmp_path / "health"
    file.write_text("{")

    assert len(read_health(file)) == 1


@pytest.mark.parametrize("name", ["no/such/health", "folder", "file/health"])
async def test_a_file_that_cannot_be_written_does_not_end_the_worker(tmp_path: Path, name: str) -> None:
    """It is logged; the worker works, and ends without an error though it cannot be removed either."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()

    async with report_health(tmp_path / name, {"Redis": _well}):
        pass


def test_a_folder_is_no_health_file(tmp_path: Path) -> None:
    """The variable names it instead of a file in it."""
    assert read_health(tmp_path) == [
        f"{tmp_path} is a folder: set WORKER_HEALTH_FILE to a file in it, the same for the worker"
    ]


def test_only_an_ordinary_file_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker of root would put a file in the place of /dev/null, and remove it at its end."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "notes").write_text("not to be lost")
    for name, problem in (("pipe", "is a device, a pipe or a socket"), ("notes", "holds something else")):
        monkeypatch.setenv("WORKER_HEALTH_FILE", str(tmp_path / name))

        with pytest.raises(SettingsError, match=f"WORKER_HEALTH_FILE: {problem}"):
            WorkerSettings.load()


async def test_a_file_that_a_killed_worker_has_left_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one process, or of a supervisor; and an empty one."""
    file = tmp_path / "health"
    monkeypatch.setenv("WORKER_HEALTH_FILE", str(file))
    found = []
    for write in (file.touch, partial(report_processes, file, 2)):
        write()
        found.append(WorkerSettings.load().health_file)
    async with report_health(file, {}):
        found.append(WorkerSettings.load().health_file)

    assert found == [file] * 3


@pytest.mark.parametrize("name", ["pipe", "'quoted'", '"quoted"', "folder", ""])
def test_the_quick_check_leaves_what_is_not_plain_to_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """It would wait for a pipe, and look for a file with quotes in its name."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORKER_HEALTH_FILE", name)

    assert named_file() is None


@pytest.mark.usefixtures("starts_processes")
@pytest.mark.parametrize("is_secret", [False, True])
def test_a_check_costs_little_of_a_cpu(tmp_path: Path, is_secret: bool) -> None:  # noqa: FBT001 - a parameter
    """Containers are checked twice a minute: nothing that is not needed is loaded, wherever the setting stands."""
    file = tmp_path / "health"
    report_processes(file, 0)
    named = {"SECRETS_DIR": str(tmp_path)} if is_secret else {"WORKER_HEALTH_FILE": str(file)}
    (tmp_path / "worker_health_file").write_text(f"{file}\n")

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "worker", "health"], env=clean_environment() | named, capture_output=True, check=False
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)

    assert (done.stdout, done.returncode) == (b"well\n", 0)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.15
