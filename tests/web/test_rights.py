"""The service with no more rights than ``deploy/`` gives it."""

import pytest
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from tests.conftest import StartWorker
from tests.leaks import PASSWORD
from tests.rights import DEPLOY, Rights, _words, database_url, redis_url, run_psql
from tests.web.conftest import StartWeb

_ACL = DEPLOY / "redis" / "users.acl"
JANE = {"name": "Jane", "email": "jane@example.org"}


@pytest.fixture
async def least(postgres_url: str, valkey_url: str, with_least_rights: Rights, redis: Redis) -> dict[str, str]:
    """Set up the role and the user of the service, and return how it reaches the servers."""
    assert with_least_rights  # the roles that its own builds on
    run_psql(postgres_url, "--file", str(DEPLOY / "postgres" / "web.sql"))
    run_psql(postgres_url, "--command", f"ALTER ROLE app_web PASSWORD '{PASSWORD}'")
    text = _ACL.read_text()
    rule = text[text.index("user web") :].split("\n\n")[0].replace("#{web}", f">{PASSWORD}")
    await redis.execute_command("ACL", "SETUSER", *_words(rule))  # type: ignore[no-untyped-call] # redis-py's
    return {"DATABASE_URL": database_url(postgres_url, "web"), "REDIS_URL": redis_url(valkey_url, "web")}


@pytest.mark.parametrize("way", ["queue", "outbox"])
async def test_least_rights_suffice(
    start_web: StartWeb,
    start_worker: StartWorker,
    sessions: async_sessionmaker[AsyncSession],
    least: dict[str, str],
    way: str,
) -> None:
    """For each route, for keys that are used again, and for both ways to accept."""
    assert sessions is not None
    service = start_web(**least, WEB_ACCEPT_THROUGH=way)

    accepted = await service.post("/users", JANE, Idempotency_Key="k1")
    refused = await service.post("/users", {"name": "Joan"}, Idempotency_Key="k1")
    unique = [await service.post("/users", JANE, Job_Unique_For="60", Job_Expires_In="60") for _ in "12"]
    start_worker()
    created = await service.post("/users", JANE, Idempotency_Key="k1", Prefer="wait=20")
    batch = await service.post("/users/batch", {"users": [JANE]}, Prefer="wait=20")
    reads = [
        await service.get(path)
        for path in ("/user?name=Jane", created.headers["Location"], "/users?email=jane@example.org", "/jobs/k1")
    ]
    none = await service.get("/jobs/none")

    assert unique[0].text == unique[1].text, service.log
    answers = [accepted, refused, created, batch, *reads, none]
    assert [answer.status for answer in answers] == [202, 422, 201, 200, 200, 200, 200, 200, 404], service.log
