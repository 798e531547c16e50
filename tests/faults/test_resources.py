"""What a registry names is opened and closed by each worker process, however it is started and ended."""

import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from arqonce import JobClient
from arqonce.process.exit_codes import ExitCode
from tests.conftest import StartWorker
from tests.faults.resourceful import NAME, Use
from tests.worker.test_end_to_end import COMMANDS

pytestmark = pytest.mark.usefixtures("starts_processes")

_WAYS = {**COMMANDS, "two processes": (*COMMANDS["ours"], "--processes", "2")}
_IN_ORDER = ["open bank", "open cache", "close cache", "close bank"]


def _by_process(log: Path) -> dict[str, list[str]]:
    found = defaultdict(list)
    for line in log.read_text().splitlines():
        what, _, process = line.rpartition(" ")
        found[process].append(what)
    return dict(found)


@pytest.mark.parametrize("way", _WAYS)
async def test_each_process_opens_and_closes_its_own(
    way: str, start_worker: StartWorker, client: JobClient, tmp_path: Path
) -> None:
    """In order, and in reverse at the end."""
    log = tmp_path / "resources.log"
    worker = start_worker(*_WAYS[way], WORKER_REGISTRY=NAME, RESOURCES_LOG=str(log))

    used = await (await client.enqueue(Use(), key="j1")).result(timeout=20)
    code = worker.stop()

    assert (used.said, code) == ("bank and cache of arq:queue for j1", 0)
    assert list(_by_process(log).values()) == [_IN_ORDER] * (2 if way == "two processes" else 1)


@pytest.mark.parametrize("is_broken", [False, True])
async def test_a_burst_closes_them_too(
    is_broken: bool,  # noqa: FBT001 - a case
    worker_environment: dict[str, str],
    client: JobClient,
    tmp_path: Path,
) -> None:
    """Or says which could not be opened, and closes what was."""
    log = tmp_path / "resources.log"
    await client.enqueue(Use())
    variables = {"WORKER_REGISTRY": NAME, "RESOURCES_LOG": str(log)} | ({"CACHE_IS_BROKEN": "1"} if is_broken else {})

    done = subprocess.run(  # noqa: ASYNC221 - nothing else runs
        [sys.executable, "-m", "worker", "run", "--burst"],
        env=worker_environment | variables, capture_output=True, text=True, check=False, timeout=40,
    )  # fmt: skip

    assert done.returncode == (ExitCode.UNAVAILABLE if is_broken else 0), done.stderr
    assert list(_by_process(log).values()) == [["open bank", "close bank"] if is_broken else _IN_ORDER]
    if is_broken:
        told = "the resource cache cannot be opened: ConnectionRefusedError: no cache at port 7"
        assert done.stderr.splitlines()[-1] == f"users-worker: {told}"
