"""Every error is a problem (RFC 9457), whoever finds it."""

import asyncio
import json
from io import BytesIO
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from pydantic import ValidationError
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, OutOfMemoryError
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from structlog.testing import capture_logs

from arqonce import QueueUnavailableError, flood
from arqonce.wire.bounds import MAX_BYTES
from jobs.payloads import CreateUser
from tests.conftest import wait_until
from tests.web.conftest import StartWeb, WebProcess
from web import outages
from web.connection import _NOT_ENCODED
from web.problems import answering_with_problems, invalid

JSON = {"Content-Type": "application/json"}


_WRONG: list[tuple[str, str, dict[str, Any], int]] = [
    ("GET", "/nothing", {}, 404),
    ("GET", "/users/0", {}, 404),
    ("GET", "/users/1e3", {}, 404),
    ("DELETE", "/users/1", {}, 405),
    ("GET", "/users/batch", {}, 405),
    ("POST", "/users", {"data": '{"name": "Jane"}', "headers": {"Content-Type": "text/plain"}}, 415),
    ("POST", "/users", {"data": "{}", "headers": {"Content-Type": "application/json; charset=latin-1"}}, 415),
    ("POST", "/users", {}, 415),
    ("POST", "/users", {"data": "{", "headers": JSON}, 400),
    ("POST", "/users", {"data": b'"\xff"', "headers": JSON}, 400),
    ("POST", "/users", {"data": b"no gzip", "headers": JSON | {"Content-Encoding": "gzip"}}, 400),
    ("POST", "/users", {"json": []}, 422),
    ("POST", "/users", {"json": {"name": "Jane", "age": 3}}, 422),
    ("POST", "/users", {"json": {"name": "\x00"}}, 422),
    ("POST", "/users", {"json": {"name": "x" * 3000}}, 413),
    ("POST", "/users/batch", {"json": {"users": []}}, 422),
    ("GET", "/user", {}, 422),
    ("GET", "/user?name=%00", {}, 422),
    ("GET", "/user?name=Jane&name=Joan", {}, 422),
    ("GET", "/user?name=Jane&page=2", {}, 422),
    ("GET", "/users?email=jane", {}, 422),
    ("GET", "/user?name=Jane", {"headers": {"Expect": "miracles"}}, 417),
]


async def test_a_wrong_request_is_told_what_is_wrong(start_web: StartWeb) -> None:
    """By status, as application/problem+json, and the same in the body; 405 says what is allowed."""
    service = start_web(WEB_MAX_BODY="2000")

    answers = [await service.ask(method, path, **options) for method, path, options, _ in _WRONG]

    wanted = [(status, status, "application/problem+json", status == 405) for *_, status in _WRONG]
    assert [(answer.status, *answer.problem[::2], "Allow" in answer.headers) for answer in answers] == wanted


async def test_a_wrong_field_is_pointed_at(service: WebProcess) -> None:
    """What was sent is not repeated."""
    answer = await service.post(
        "/users/batch", {"users": [{"name": "Jane"}, {"name": "Joan", "email": "quillfeather"}]}
    )

    (error,) = answer.json["errors"]
    assert error == {"pointer": "#/users/1/email", "detail": "is not an e-mail address such as jane@example.org"}


@pytest.mark.parametrize(("number", "told", "left_out"), [(2001, 2000, "1"), (20_000, 0, "20,000")])
def test_errors_without_number_are_told_in_part(number: int, told: int, left_out: str) -> None:
    """A body of the largest size has room for a hundred thousand."""
    with pytest.raises(ValidationError) as caught:
        CreateUser.model_validate({"name": "Jane"} | {f"field{number}": 1 for number in range(number)})

    problem = json.loads(invalid(caught.value).response().text or "")

    assert (len(problem["errors"]), problem["detail"]) == (
        told,
        f"the request does not fit its description, and {left_out} errors are left out",
    )


@pytest.mark.parametrize(
    ("request_line", "detail"),
    [
        ("GET / HTTP/1.1\r\nContent-Length: quillfeather", "this is not HTTP/1.1 (RFC 9112)"),
        ("GET / HTTP/3.0", "this is not HTTP/1.1 (RFC 9112)"),
        ("GET /user?name=Jürgen HTTP/1.1", _NOT_ENCODED),
        ("GET /user?name=Jane Doe HTTP/1.1", _NOT_ENCODED),
    ],
    ids=["length", "version", "letter", "space"],
)
async def test_what_is_no_http_is_answered_with_a_problem(service: WebProcess, request_line: str, detail: str) -> None:
    """400, by the connection itself: no route has seen it. curl sends a URL as it was typed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(f"{request_line}\r\nHost: x\r\n\r\n".encode())
    head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    writer.close()

    assert "application/problem+json" in head
    assert json.loads(body) == {"type": "about:blank", "title": "Bad Request", "status": 400, "detail": detail}


async def test_a_fault_of_ours_is_500_and_in_the_log(
    service: WebProcess, sessions: async_sessionmaker[AsyncSession]
) -> None:
    """With its SQLSTATE, and without what was asked for."""
    async with sessions.begin() as session:
        await session.execute(text("ALTER TABLE users RENAME TO people"))
    try:
        answer = await service.get("/user", params={"name": "Zenobia Quillfeather"})
    finally:
        async with sessions.begin() as session:
            await session.execute(text("ALTER TABLE people RENAME TO users"))

    assert answer.problem == (500, None, "application/problem+json")
    wait_until(lambda: '"request failed"' in service.log, 5)
    (line,) = [line for line in service.lines if line["event"] == "request failed"]
    assert "42P01" in line["error"]


async def test_a_batch_too_large_for_a_message_is_refused(service: WebProcess, redis: Redis) -> None:
    """413 also where the body is not too large: around it, the message is."""
    face = "\U0001f600"
    users = [{"name": face * 200, "email": f"{number:04}@{'x' * (217 + number % 2)}.org"} for number in range(999)]
    short = _compact([*users, {"name": ""}])
    largest = _compact([*users, {"name": "x" * (MAX_BYTES - len(short))}])

    answers = [
        await service.ask("POST", "/users/batch", data=BytesIO(body), headers=JSON)
        for body in (largest[:-2] + b" ]}", largest, short.replace(b'""', b'"x"'))
    ]

    assert [answer.problem[:2] for answer in answers[:2]] == [(413, None), (413, "job_too_large")]
    assert answers[2].status == 202
    assert await redis.zcard("arq:queue") == 1


def _compact(users: list[dict[str, str]]) -> bytes:
    return json.dumps({"users": users}, separators=(",", ":"), ensure_ascii=False).encode()


async def test_no_log_line_names_a_person(service: WebProcess) -> None:
    """The access log has method, route, status and time: no path, query or address."""
    await service.get("/user", params={"name": "Zenobia Quillfeather"})
    await service.post("/users", {"name": "Zenobia Quillfeather"}, Idempotency_Key="quillfeather")
    await service.get("/jobs/quillfeather")

    wait_until(lambda: service.log.count('"request"') == 3, 5)
    lines = [line for line in service.lines if line["event"] == "request"]
    assert [(line["method"], line["route"], line["status"]) for line in lines] == [
        ("GET", "/user", 404),
        ("POST", "/users", 202),
        ("GET", "/jobs/{id}", 200),
    ]
    assert "uillfeather" not in service.log
    assert "127.0.0.1" not in service.log.replace('"host": "127.0.0.1"', "")


async def test_an_outage_is_logged_once_a_minute_and_not_for_each_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the number of requests that it has failed, each reason of its own, and once when it is over."""
    now = 0.0
    monkeypatch.setattr(flood, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(outages, "time", SimpleNamespace(monotonic=lambda: now))
    noted = outages.Outages()
    answer = answering_with_problems(noted)
    request = make_mocked_request("POST", "/users")

    async def fail(error: Exception | None) -> str:
        async def handler(_request: web.Request) -> web.StreamResponse:
            raise QueueUnavailableError("no route to host") from error

        response = await answer(request, handler)
        assert isinstance(response, web.Response)
        return str(response.text)

    full = OutOfMemoryError("command not allowed when used memory > 'maxmemory'.")
    with capture_logs() as lines:
        details = [await fail(error) for error in (None, None, None, full, AuthenticationError("NOAUTH"))]
        now += 61
        details.append(await fail(None))
        noted.used("Redis")  # others still fail
        now += 6
        noted.used("Redis")
        noted.used("Redis")
        details.append(await fail(None))

    assert ["cannot be reached" in detail for detail in details] == [True, True, True, False, False, True, True]
    assert [(line["event"], line.get("requests", line.get("failed_requests"))) for line in lines] == [
        ("Redis is gone", 1),
        ("Redis refuses commands", 1),
        ("Redis is gone", 3),
        ("Redis is back", 6),
        ("Redis is gone", 1),
    ]
