"""The service as operators run it: a process, on the servers of the tests."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import aiohttp
import pytest
from multidict import CIMultiDictProxy
from redis.asyncio import Redis

from arqonce.testing.programs import Process, Programs
from tests.conftest import _end, wait_until
from tests.faults.conftest import postgres_proxy, redis_proxy, valkey  # noqa: F401 - fixtures
from tests.warm import NOT_OURS

TOKEN = "0123456789abcdef0123456789abcdef"  # noqa: S105 - of services that live for one test


@dataclass(frozen=True)
class Answer:
    """What the service answered."""

    status: int
    headers: CIMultiDictProxy[str]
    text: str

    @property
    def json(self) -> Any:  # noqa: ANN401 - JSON
        """The body, read as JSON."""
        return json.loads(self.text)

    @property
    def problem(self) -> tuple[int, str | None, str]:
        """Status and code of the problem, and whether it is said to be one."""
        return self.json["status"], self.json.get("code"), self.headers["Content-Type"]


class WebProcess:
    """The service in a process of its own."""

    def __init__(self, process: Process, log: Path, http: aiohttp.ClientSession) -> None:
        self.process = process
        self._log = log
        self._http = http

    @property
    def log(self) -> str:
        """Everything that it has written so far."""
        return self._log.read_text()

    @property
    def lines(self) -> list[dict[str, Any]]:
        """What it has logged so far; the last line may not be complete yet."""
        return [json.loads(line) for line in self.log.splitlines(keepends=True) if line.endswith("\n")]

    @property
    def port(self) -> int:
        """The port that it took."""
        (line,) = [line for line in self.lines if line["event"] == "serving"]
        return int(line["port"])

    @property
    def url(self) -> str:
        """Where it serves."""
        return f"http://127.0.0.1:{self.port}"

    async def ask(self, method: str, path: str, **options: Any) -> Answer:  # noqa: ANN401 - aiohttp's
        """Send a request, and read the answer."""
        async with self._http.request(method, self.url + path, **options) as response:
            return Answer(response.status, response.headers, await response.text())

    async def get(self, path: str, **options: Any) -> Answer:  # noqa: ANN401 - aiohttp's
        """Read."""
        return await self.ask("GET", path, **options)

    async def post(self, path: str, body: object, **headers: str) -> Answer:
        """Send JSON; of the headers' names, ``_`` is ``-``."""
        return await self.ask(
            "POST", path, json=body, headers={name.replace("_", "-"): value for name, value in headers.items()}
        )


class StartWeb(Protocol):
    """Starts the service and waits until it serves; keyword arguments are environment variables."""

    def __call__(self, **environment: str) -> WebProcess:
        """Start one."""
        ...


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """Yield a client that remembers nothing."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield session


@pytest.fixture
def start_web(
    environment: dict[str, str], tmp_path: Path, redis: Redis, http: aiohttp.ClientSession, jobs_programs: Programs
) -> Iterator[StartWeb]:
    """Yield a function that starts the service; it is stopped after the test."""
    assert redis is not None  # the queue is empty
    with ExitStack() as stack:

        def start(**variables: str) -> WebProcess:
            log = tmp_path / f"web-{uuid4().hex}.log"
            process = jobs_programs.start(
                "web",
                environment=environment | {"WEB_PORT": "0", "WEB_LOG_FORMAT": "json"} | variables,
                warnings=["error", NOT_OURS],
                output=log,
            )
            stack.callback(_end, process)
            wait_until(lambda: process.poll() is not None or '"serving"' in log.read_text(), 30)
            assert process.poll() is None, log.read_text()
            return WebProcess(process, log, http)

        yield start


@pytest.fixture
def service(start_web: StartWeb) -> WebProcess:
    """Start the service with its defaults."""
    return start_web()
