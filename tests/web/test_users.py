"""The routes of users and jobs, with a real worker behind them."""

import asyncio
import json
from urllib.parse import quote

import pytest
from redis.asyncio import Redis
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from yarl import URL

from db.tables import User
from tests.conftest import StartWorker, wait_until_async
from tests.web.conftest import Answer, WebProcess

Sessions = async_sessionmaker[AsyncSession]
WAIT = {"Prefer": "wait=20"}
JANE = {"name": "Jane", "email": "jane@example.org"}
CONFLICT = (422, "key_conflict", "application/problem+json")


@pytest.fixture(autouse=True)
def _clean(sessions: Sessions) -> None:
    assert sessions is not None  # it removes the users afterwards


async def _count(sessions: Sessions) -> int:
    async with sessions() as session:
        return await session.scalar(select(func.count()).select_from(User)) or 0


async def _ended(service: WebProcess, location: str) -> Answer:
    async def has_ended() -> bool:
        return (await service.get(location)).json["status"] in {"succeeded", "failed"}

    await wait_until_async(has_ended, 20)
    return await service.get(location)


async def test_a_user_is_found_by_name_id_and_email(service: WebProcess, sessions: Sessions) -> None:
    """By name just id and name, of the oldest; by id all of it; by e-mail a list."""
    async with sessions.begin() as session:
        jane = User(name="Jane", email="jane@example.org")
        session.add_all([jane, User(name="Zoë")])
        await session.flush()
        session.add(User(name="Jane"))

    by_name, by_id = await service.get("/user?name=Jane"), await service.get(f"/users/{jane.id}")
    by_email = await service.get("/users", params={"email": " Jane@Example.org "})

    assert (by_name.status, by_name.json) == (200, {"id": jane.id, "name": "Jane"})
    assert by_id.json == {"id": jane.id, **JANE, "created_at": by_id.json["created_at"]}
    assert by_email.json == {"users": [by_id.json]}
    assert (await service.get("/user", params={"name": "Zoe\u0308"})).json["name"] == "Zoë"


async def test_who_is_not_there_is_not_found(service: WebProcess) -> None:
    """Also with an id that PostgreSQL cannot hold; a list is empty."""
    answers = [await service.get(path) for path in ("/user?name=Jane", "/users/1", f"/users/{2**63}", "/jobs/none")]

    assert [answer.status for answer in answers] == [404] * 4
    assert (await service.get("/users?email=jane@example.org")).json == {"users": []}


async def test_a_post_is_accepted_and_its_job_creates_the_user(service: WebProcess, start_worker: StartWorker) -> None:
    """202 at once, with the place where the job can be followed to its end."""
    accepted = await service.post("/users", JANE)
    location = accepted.headers["Location"]
    queued = await service.get(location)
    start_worker()
    ended = await _ended(service, location)

    assert (accepted.status, location) == (202, f"/jobs/{accepted.json['job_id']}")
    assert (queued.json["status"], ended.json["status"]) == ("queued", "succeeded")
    assert ended.json["result"]["name"] == "Jane"
    assert (await service.get("/user?name=Jane")).json["id"] == ended.json["result"]["id"]


async def test_who_prefers_to_wait_gets_the_user(service: WebProcess, start_worker: StartWorker) -> None:
    """201, with the user and its place; a batch is 200 with each one's id."""
    start_worker()

    created = await service.ask("POST", "/users", json=JANE, headers=WAIT)
    batch = await service.ask("POST", "/users/batch", json={"users": [JANE, {"name": "Zoë"}]}, headers=WAIT)

    assert (created.status, created.headers["Preference-Applied"]) == (201, "wait=20")
    assert (await service.get(created.headers["Location"])).json == created.json
    assert batch.status == 200
    assert [user["is_new"] for user in batch.json["users"]] == [False, True]


async def test_who_waits_in_vain_gets_the_job(service: WebProcess) -> None:
    """No worker runs: 202 after the time, and the job stays."""
    answer = await service.post("/users", JANE, Prefer="wait=1")

    assert answer.status == 202
    assert (await service.get(answer.headers["Location"])).json["status"] == "queued"


async def test_a_taken_email_is_a_conflict(service: WebProcess, start_worker: StartWorker) -> None:
    """409 for who waits; a failed job for who asks later, with the same reason."""
    start_worker()
    await service.post("/users", JANE, **WAIT)

    waited = await service.post("/users", JANE, **WAIT)
    later = await _ended(service, (await service.post("/users", JANE)).headers["Location"])

    assert waited.problem == (409, "email_taken", "application/problem+json")
    assert (later.json["status"], later.json["failure"]["type"]) == ("failed", "email_taken")


async def test_the_same_key_with_the_same_request_has_the_same_answer(
    service: WebProcess, start_worker: StartWorker, redis: Redis, sessions: Sessions
) -> None:
    """Queued, ended, and after Redis has forgotten it: one user, and one answer, whether waited for or not."""
    queued = [await service.post("/users", {"name": "Jane"}, Idempotency_Key='"k1"') for _ in "12"]
    start_worker()
    created = [
        await service.post("/users", {"name": "Jane", "email": None}, Idempotency_Key="k1", **WAIT) for _ in "12"
    ]
    await redis.flushall()
    remembered = [
        await service.post("/users", {"name": "Jane"}, Idempotency_Key="k1", **header) for header in (WAIT, {})
    ]

    assert {(answer.status, answer.text) for answer in [*queued, remembered[1]]} == {(202, '{"job_id":"k1"}')}
    assert {(answer.status, answer.text) for answer in [*created, remembered[0]]} == {(201, created[0].text)}
    assert await _count(sessions) == 1


async def test_the_same_key_with_another_request_is_refused(
    service: WebProcess, start_worker: StartWorker, redis: Redis, sessions: Sessions
) -> None:
    """422 while the job is queued, after it has ended, and after Redis has forgotten it; nothing is enqueued."""
    others = [("/users", {"name": "Joan"}), ("/users/batch", {"users": [{"name": "Jane"}]})]
    location = (await service.post("/users", {"name": "Jane"}, Idempotency_Key="k1")).headers["Location"]

    queued = [await service.post(path, body, Idempotency_Key="k1") for path, body in others]
    start_worker()
    await _ended(service, location)
    ended = [await service.post(path, body, Idempotency_Key="k1") for path, body in others]
    await redis.flushall()
    forgotten = [await service.post(path, body, Idempotency_Key="k1") for path, body in others]

    assert [answer.problem for answer in [*queued, *ended, *forgotten]] == [CONFLICT] * 6
    assert await _count(sessions) == 1


async def test_simultaneous_requests_with_one_key_are_one(service: WebProcess, redis: Redis) -> None:
    """The queue decides, in one step."""
    answers = await asyncio.gather(*(service.post("/users", JANE, Idempotency_Key="k1") for _ in range(20)))

    assert {(answer.status, answer.text) for answer in answers} == {(202, '{"job_id":"k1"}')}
    assert await redis.zcard("arq:queue") == 1


@pytest.mark.parametrize("key", ["a/b?c#d%20~e", '"{}"', "..."])
async def test_any_key_has_a_place(service: WebProcess, key: str) -> None:
    """A key may hold what means something in a URL."""
    accepted = await service.post("/users", JANE, Idempotency_Key=key)

    seen = await service._http.get(URL(service.url + accepted.headers["Location"], encoded=True))
    assert accepted.headers["Location"] == f"/jobs/{quote(accepted.json['job_id'], safe='')}"
    assert json.loads(await seen.text())["status"] == "queued"


@pytest.mark.parametrize("key", ["", "two words", "é", "k" * 201, ".."])
async def test_what_cannot_be_an_id_is_refused_as_a_key(service: WebProcess, redis: Redis, key: str) -> None:
    """400, and nothing is enqueued."""
    answer = await service.post("/users", JANE, Idempotency_Key=key)

    assert answer.problem == (400, "invalid_key", "application/problem+json")
    assert await redis.zcard("arq:queue") == 0
