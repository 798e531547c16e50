"""The page docs/http.md: the service starts and answers curl, and the proxies before it fit its settings."""

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
from web.settings import WebSettings

pytestmark = pytest.mark.usefixtures("starts_processes")

PAGE = "docs/http.md"


@pytest.fixture
def _worker(start_worker: StartWorker, sessions: async_sessionmaker[AsyncSession]) -> None:
    assert sessions is not None  # it removes the users afterwards
    start_worker()


def test_every_command_is_run() -> None:
    """Nothing but these."""
    commands = [command for block in blocks_in(PAGE) if block.language == "console" for command in block.commands]
    programs = [command[0] for command in commands]

    assert programs == ["users-web", "curl", "curl", "curl"]


def test_every_block_has_a_test() -> None:
    """That of nginx is run by ``tests/web/test_proxy.py``; Caddy's is compared with our settings alone."""
    assert [block.language for block in blocks_in(PAGE)] == ["console", "console", "nginx", "caddyfile"]


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


def test_the_proxies_fit_the_defaults() -> None:
    """Shorter idle connections than ours, a longer wait than ours, and the same sizes."""
    nginx, caddy = (block.code for block in blocks_in(PAGE) if block.language in {"nginx", "caddyfile"})
    idle, wait = (WebSettings.model_fields[name].default.total_seconds() for name in ("idle_timeout", "max_wait"))
    header, body = (WebSettings.model_fields[name].default for name in ("max_header", "max_body"))

    kept = [_seconds(r"\n    keepalive_timeout", nginx), _seconds("keepalive", caddy)]
    waits = [_seconds("proxy_read_timeout", nginx), _seconds("response_header_timeout", caddy)]

    assert max(kept) < idle
    assert min(waits) >= wait + 10
    assert ("large_client_header_buffers 2 8k;" in nginx, "max_header_size 16KiB" in caddy) == (True, True)
    assert ("client_max_body_size 1m;" in nginx, "max_size 1MiB" in caddy) == (True, True)
    assert (header, body) == (16 * 1024, 1024 * 1024)


def _seconds(name: str, text: str) -> int:
    return int(re.findall(rf"{name} (\d+)s", text)[0])
