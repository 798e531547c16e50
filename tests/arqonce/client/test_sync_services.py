"""The synchronous client where it is used: under gevent, in Flask and in Django, each a process of its own."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from redis import Redis
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from tests.conftest import StartWorker, wait_until

PROGRAMS = Path(__file__).parent / "programs"
Sessions = async_sessionmaker[AsyncSession]


def test_five_hundred_greenlets_wait_under_gevent(
    start_worker: StartWorker, sessions: Sessions, environment: dict[str, str]
) -> None:
    """With everything patched: no event loop, no thread, one connection for all results, and nobody is blocked."""
    assert sessions is not None  # it removes the users afterwards
    start_worker()

    done = subprocess.run(
        [sys.executable, str(PROGRAMS / "gevent_service.py")],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert (done.returncode, done.stdout) == (0, "gevent: 500 users\n"), done.stderr


@contextmanager
def _service(program: str, environment: dict[str, str]) -> Iterator[Callable[..., tuple[int, dict[str, object]]]]:
    """Run a web application; yield a function that sends it a request and returns status and body."""
    with subprocess.Popen(
        [sys.executable, str(PROGRAMS / program)],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        base = f"http://127.0.0.1:{int(process.stdout.readline())}"

        def send(path: str, body: object = None, **headers: str) -> tuple[int, dict[str, object]]:
            data = None if body is None else json.dumps(body).encode()
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            request = Request(base + path, data, {"Content-Type": "application/json"} | named)  # noqa: S310 - of loopback
            try:
                with urlopen(request, timeout=30) as answer:  # noqa: S310 - of loopback
                    return answer.status, json.load(answer)
            except HTTPError as error:
                with error:
                    return error.code, json.load(error)

        try:
            yield send
        finally:
            process.kill()


@pytest.mark.parametrize("program", ["flask_service.py", "django_service.py"])
def test_a_web_application_enqueues_and_waits(
    start_worker: StartWorker, sessions: Sessions, environment: dict[str, str], valkey_url: str, program: str
) -> None:
    """Forty requests at once in its threads; duplicates, refusals, and a job that is not done in time."""
    assert sessions is not None  # it removes the users afterwards
    with _service(program, environment) as send:
        status, late = send("/users?wait=0.1", {"name": "Late"})
        job = send(f"/jobs/{late['job']}")
        worker = start_worker()
        wait_until(lambda: send(f"/jobs/{late['job']}")[1] == {"status": "succeeded"}, 20)
        with ThreadPoolExecutor(40) as threads:
            users = [
                one.result()
                for one in [threads.submit(send, "/users?wait=20", {"name": f"user {n}"}) for n in range(40)]
            ]
        jane = {"name": "Jane", "email": "jane@example.org"}
        first = send("/users?wait=20", jane, Idempotency_Key="k")
        again = send("/users?wait=20", jane, Idempotency_Key="k")
        taken = send("/users?wait=20", jane, Idempotency_Key="other")
        wrong = send("/users?wait=20", {"name": ""})

    assert (status, job) == (202, (200, {"status": "queued"}))
    assert [(code, user["name"]) for code, user in users] == [(201, f"user {n}") for n in range(40)]
    assert (first[0], again, taken[0], wrong[0]) == (201, first, 409, 422)
    with Redis.from_url(valkey_url) as store:
        assert (store.zcard("arq:queue"), worker.process.poll()) == (0, None)
