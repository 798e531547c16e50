"""How often and until when a job may run, by headers; and texts that no way in accepts."""

import asyncio

import pytest
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from tests.conftest import StartWorker
from tests.web.conftest import StartWeb, WebProcess

Sessions = async_sessionmaker[AsyncSession]
WAIT = {"Prefer": "wait=20"}
JANE = {"name": "Jane"}


@pytest.fixture(autouse=True)
def _clean(sessions: Sessions) -> None:
    assert sessions is not None  # it removes the users afterwards


@pytest.mark.parametrize("way", ["queue", "outbox"])
async def test_an_equal_request_within_its_time_is_the_same_job(
    start_web: StartWeb, start_worker: StartWorker, way: str
) -> None:
    """Before and after it has ended; another request is another job, and so is an equal one without the header."""
    service = start_web(WEB_ACCEPT_THROUGH=way)

    first, again, other, without = [
        (await service.post("/users", body, **headers)).json["job_id"]
        for body, headers in [(JANE, TIME), (JANE, TIME), ({"name": "Joan"}, TIME), (JANE, {})]
    ]
    start_worker()
    ended = [await service.post("/users", JANE, **TIME, **WAIT) for _ in "12"]

    assert again == first
    assert len({first, other, without}) == 3
    assert {(answer.status, answer.text) for answer in ended} == {(201, ended[0].text)}


TIME = {"Job_Unique_For": "600"}


async def test_an_expired_job_is_told(service: WebProcess, start_worker: StartWorker, redis: Redis) -> None:
    """409 to a client that waits, as for an aborted job; it has stored nobody."""
    accepted = await service.post("/users", JANE, Idempotency_Key="k1", Job_Expires_In="1")
    async with asyncio.timeout(5):
        while (await redis.time())[0] * 1000 < await _expiry(redis):
            await asyncio.sleep(0.05)
    start_worker()

    late = await service.post("/users", JANE, Idempotency_Key="k1", **WAIT)

    assert accepted.status == 202
    assert late.problem == (409, "expired", "application/problem+json")


async def _expiry(redis: Redis) -> int:
    message: bytes = await redis.get("arq:job:k1") or b""
    return int(message.partition(b'"xt":')[2].rstrip(b"}")) + 1000


@pytest.mark.parametrize(
    ("headers", "code", "named"),
    [
        ({"Job_Unique_For": "0"}, "invalid_time", "Job-Unique-For"),
        ({"Job_Expires_In": "1h"}, "invalid_time", "Job-Expires-In"),
        ({"Job_Expires_In": "9999999999"}, "invalid_time", "Job-Expires-In"),
        ({"Job_Unique_For": "60", "Idempotency_Key": "k1"}, "invalid_key", "not both"),
    ],
)
async def test_what_cannot_be_meant_is_refused(
    service: WebProcess, redis: Redis, headers: dict[str, str], code: str, named: str
) -> None:
    """400 with the header's name, and nothing is enqueued."""
    answer = await service.post("/users", JANE, **headers)

    assert (*answer.problem[:2], named in answer.json["detail"]) == (400, code, True)
    assert await redis.zcard("arq:queue") == 0


@pytest.mark.parametrize("name", [r"a\u0000", r"\ud800"])
async def test_a_text_that_no_way_in_accepts_is_refused(service: WebProcess, redis: Redis, name: str) -> None:
    """The body is JSON, and a name with such a character is none; nothing is enqueued."""
    headers = {"Content-Type": "application/json"}

    answer = await service.ask("POST", "/users", data=f'{{"name": "{name}"}}', headers=headers)

    assert answer.problem[:2] in {(422, "invalid_request"), (400, "malformed_json")}
    assert await redis.zcard("arq:queue") == 0
