"""The commands of docs/http.md: the service starts, and answers curl."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from tests.conftest import StartWorker, wait_until
from tests.docs.blocks import blocks_in, commands_in
from tests.programs import require

pytestmark = pytest.mark.usefixtures("starts_processes")

PAGE = "docs/http.md"


@pytest.fixture
def _worker(start_worker: StartWorker, sessions: async_sessionmaker[AsyncSession]) -> None:
    assert sessions is not None  # it removes the users afterwards
    start_worker()


def test_every_command_is_run() -> None:
    """Nothing but these."""
    programs = [command[0] for block in blocks_in(PAGE) for command in block.commands]

    assert programs == ["users-web", "curl", "curl", "curl"]


@pytest.mark.usefixtures("_worker")
def test_the_service_answers_curl(environment: dict[str, str], tmp_path: Path) -> None:
    """Jane is created, found, and the description is there; the port is another one, so that 8080 may be taken."""
    require("curl")
    (service,) = commands_in(PAGE, "users-web")
    log = tmp_path / "web.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [Path(sys.executable).parent / service[0]],
            env=environment | {"WEB_PORT": "0", "WEB_LOG_FORMAT": "json"}, stdin=subprocess.DEVNULL, stderr=output,
        )  # fmt: skip
    try:
        wait_until(lambda: '"port": ' in log.read_text() or process.poll() is not None, 30)
        port = re.findall(r'"port": (\d+)', log.read_text())[0]
        commands = [[part.replace(":8080/", f":{port}/") for part in one] for one in commands_in(PAGE, "curl")]
        answers = [json.loads(subprocess.run(one, capture_output=True, check=True).stdout) for one in commands]
    finally:
        process.terminate()

    created, found, described = answers
    assert process.wait(30) == 0
    assert (found, described["openapi"]) == ({"id": created["id"], "name": "Jane"}, "3.1.0")
