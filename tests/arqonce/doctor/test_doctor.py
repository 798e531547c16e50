"""The doctor on real servers: a healthy pair is well, and each check is broken once."""

import json
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from pydantic import SecretStr
from redis.asyncio import Redis
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce import DatabaseSettings
from arqonce.commands.doctor import _exit_code
from arqonce.connection.presence import LiveWorker, announce
from arqonce.connection.redis import build_redis
from arqonce.database.engine import open_database
from arqonce.doctor import postgres as postgres_module
from arqonce.doctor.examination import ask_all
from arqonce.doctor.finding import Finding, Verdict, compare_clocks, is_this_host, judge_certificate
from arqonce.doctor.fleet import connections_of_workers, examine_fleet
from arqonce.doctor.local import settings_checks
from arqonce.doctor.postgres import Postgres
from arqonce.doctor.redis import RedisServer
from arqonce.process.exit_codes import ExitCode
from arqonce.settings.queue import QueueSettings
from arqonce.settings.worker import Settings, WorkerSettings
from jobs.registry import REGISTRY
from tests.lines import show

WELL, NOT_SEEN, WARNING, FAILURE = Verdict.WELL, Verdict.NOT_SEEN, Verdict.WARNING, Verdict.FAILURE

Sessions = async_sessionmaker[AsyncSession]


async def _of_postgres(
    settings: DatabaseSettings, *, longest: timedelta = timedelta(seconds=30), connections: int = 13
) -> dict[str, Finding]:
    async with open_database(settings, pool_size=2) as sessions:
        server = Postgres(sessions, settings, schemas=(), longest=longest, connections=connections)
        return _by_name(await ask_all(server.checks))


async def _of_redis(url: str) -> dict[str, Finding]:
    async with build_redis(url, Redis) as redis:
        return _by_name(await ask_all(RedisServer(redis, url, ["arq:queue"]).checks))


def _by_name(findings: Sequence[Finding]) -> dict[str, Finding]:
    return {finding.check.partition(": ")[2]: finding for finding in findings}


@pytest.mark.parametrize(
    ("name", "is_here"),
    [
        ("", True), ("localhost", True), ("127.0.0.1", True), ("::1", True), ("/var/run/postgresql", True),
        ("my-localhost", False), ("localhost.example.com", False), ("10.127.0.0.1", False), ("redis", False),
    ],
)  # fmt: skip
def test_a_server_is_on_this_host_by_its_whole_name(name: str, *, is_here: bool) -> None:
    """A name that merely contains one of this host's is another host's."""
    assert is_this_host(name) is is_here


@pytest.fixture
async def stranger(postgres_url: str) -> AsyncIterator[DatabaseSettings]:
    """Yield the database as a role sees it that has no rights."""
    connection = await asyncpg.connect(postgres_url)
    await connection.execute("CREATE ROLE stranger LOGIN PASSWORD 'stranger' CONNECTION LIMIT 5")
    database = make_url(postgres_url).database
    await connection.execute(f'GRANT CONNECT ON DATABASE "{database}" TO stranger')  # other tests shut everybody out
    url = make_url(postgres_url).set(username="stranger", password="stranger")
    yield DatabaseSettings(url=SecretStr(url.render_as_string(hide_password=False)))
    await connection.execute("DROP OWNED BY stranger")
    await connection.execute("DROP ROLE stranger")
    await connection.close()


async def test_healthy_servers_are_well(
    database: DatabaseSettings, sessions: Sessions, redis: Redis, valkey_url: str
) -> None:
    """Nothing is said of what is as it should be, and what the server does not tell is no trouble."""
    assert (sessions, redis) is not None
    found = await _of_postgres(database) | await _of_redis(valkey_url)

    troubles = {name: finding for name, finding in found.items() if finding.verdict in {WARNING, FAILURE}}
    assert troubles.keys() <= {"persistence"}  # the tests' server keeps nothing on disk
    assert len(found) >= 20


async def test_a_server_that_is_away_is_said_once() -> None:
    """Not by each of its checks."""
    url = SecretStr("postgresql://user@127.0.0.1:9/app")

    (first,) = (await _of_postgres(DatabaseSettings(url=url))).values()
    (second,) = (await _of_redis("redis://127.0.0.1:9/0")).values()

    assert (first.verdict, second.verdict) == (FAILURE, FAILURE)
    assert _exit_code([first, second]) == ExitCode.UNAVAILABLE


async def test_commits_that_wait_for_a_standby_are_told(
    monkeypatch: pytest.MonkeyPatch, database: DatabaseSettings
) -> None:
    """The server answers and takes writes: nothing else says why each job takes ten seconds."""
    waiting = "(VALUES ('SyncRep', now() - interval '7 s'), ('SyncRep', now()), ('ClientRead', '1970-01-01'))"
    statement = str(postgres_module._SYNCHRONOUS)
    view = f"{waiting} AS pg_stat_activity (wait_event, state_change)"
    monkeypatch.setattr(postgres_module, "_SYNCHRONOUS", text(statement.replace("pg_stat_activity", view)))

    found = (await _of_postgres(database))["writes"]

    assert (found.verdict, found.value) == (WARNING, "1 commits wait for a synchronous standby, for 7 s")


async def test_missing_migrations_are_a_failure(database: DatabaseSettings) -> None:
    """With the command that applies them. Nobody lacks a right on a table that there is not."""
    found = await _of_postgres(database.model_copy(update={"ledger_schema": "nowhere"}))

    assert found["migrations"].verdict is FAILURE
    assert "migrate" in (found["migrations"].cure or "")
    assert found["rights"].verdict is WELL


async def test_too_many_connections_are_a_failure(
    database: DatabaseSettings, stranger: DatabaseSettings, postgres_url: str
) -> None:
    """By the server's limit, and by that of a role that runs jobs; an operator's role has a limit of its own."""
    assert (await _of_postgres(database, connections=10_000))["connections"].verdict is FAILURE
    assert (await _of_postgres(stranger, connections=6))["connections"].verdict is WELL
    owner = await asyncpg.connect(postgres_url)
    await owner.execute(
        "GRANT ALL ON SCHEMA arqonce TO stranger; GRANT ALL ON ALL TABLES IN SCHEMA arqonce TO stranger"
    )
    await owner.close()
    assert (await _of_postgres(stranger, connections=6))["connections"].verdict is FAILURE


async def test_who_may_not_look_is_told_so(stranger: DatabaseSettings) -> None:
    """It is no failure of the server's."""
    found = await _of_postgres(stranger)

    assert found["rights"].verdict is WARNING
    assert "stranger lacks SELECT on arqonce.receipts" in found["rights"].value
    assert {found[name].verdict for name in ("promised jobs", "dead letters", "migrations")} <= {NOT_SEEN, FAILURE}


async def test_a_limit_shorter_than_a_deadline_is_named(database: DatabaseSettings, postgres_url: str) -> None:
    """PostgreSQL 17 and later end a transaction by themselves."""
    name = make_url(postgres_url).database
    connection = await asyncpg.connect(postgres_url)
    await connection.execute(f"ALTER DATABASE \"{name}\" SET transaction_timeout = '20s'")
    found = await _of_postgres(database)
    await connection.execute(f'ALTER DATABASE "{name}" RESET transaction_timeout')
    await connection.close()

    assert found["limits of transactions"].verdict is WARNING
    assert "transaction_timeout 20 s" in found["limits of transactions"].value


async def test_an_old_transaction_is_named(
    database: DatabaseSettings, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has it, so that it can be ended."""
    monkeypatch.setattr(postgres_module, "_OLD_TRANSACTION", timedelta(0))
    async with sessions() as session:
        pid = await session.scalar(text("SELECT pg_backend_pid()"))
        found = await _of_postgres(database)

    assert found["oldest transaction"].verdict is WARNING
    assert f"pid {pid}" in found["oldest transaction"].value


async def test_the_state_of_the_ledger_is_told(database: DatabaseSettings, sessions: Sessions) -> None:
    """Promises that nobody gives, and letters of the last hour."""
    async with sessions.begin() as session:
        await session.execute(
            text(
                "INSERT INTO arqonce.outbox (job_id, job_name, queue, message, request_hash, due_at, give_at) "
                "VALUES ('a', 'b', 'nobody', '', '', now(), now() - interval '1 hour')"
            )
        )
        await session.execute(
            text(
                "INSERT INTO arqonce.dead_jobs (job_id, message, reason, explanation, error, attempts) "
                "VALUES ('c', '', 'unknown_job', '', '', 1)"
            )
        )
    found = await _of_postgres(database)

    assert found["promised jobs in nobody"].verdict is WARNING
    assert "1 overdue" in found["promised jobs in nobody"].value
    assert found["dead letters"].verdict is WARNING
    assert "unknown_job 1" in found["dead letters"].value


async def test_the_fleet_is_examined_by_what_its_workers_say(redis: Redis, valkey_url: str) -> None:
    """Their queues, clocks and loops, and how many connections they may open."""
    await redis.zadd("arq:queue", {"due": 1})
    (alone,) = [one for one in await examine_fleet(redis, ["arq:queue"]) if one.verdict is WARNING]
    block = {"job_name": "create_user", "at": "jobs/users.py:12 create_user"}
    said: list[dict[str, object]] = [{"slots": 50, "clock_offset": 30.0, "block": block}, {"slots": None}]
    for number, doing in enumerate(said):
        worker = LiveWorker(str(number), "there", number, ["arq:queue"])
        await announce(redis, worker)
        await show(redis, worker, doing)

    found = await _of_redis(valkey_url)

    assert "arq:queue, which no worker serves" in (alone.cure or "")
    assert (found["queues"].verdict, found["queues"].value) == (WELL, "2 alive, 1 host")
    assert {found[name].verdict for name in ("clocks", "event loops")} == {WARNING}
    assert "0:00:30 behind" in found["clocks"].value
    assert await connections_of_workers(redis, otherwise=10) == 50 + 10 + 2 * 3


async def test_a_queue_whose_name_is_misspelt_is_found_in_redis(redis: Redis, valkey_url: str) -> None:
    """By its jobs: nothing else tells of it. The worker serves another one."""
    await announce(redis, LiveWorker("1", "there", 1, ["arq:queue"]))
    await redis.zadd("arq:qeue", {"misspelt": 1})
    await redis.set("arq:job:misspelt", b"{}")

    found = await _of_redis(valkey_url)

    assert "jobs wait in arq:qeue, which no worker serves" in (found["queues"].cure or "")


async def test_without_workers_connections_are_counted_for_one(redis: Redis) -> None:
    """The one that is to be started."""
    assert await connections_of_workers(redis, otherwise=10) == 13


@pytest.mark.parametrize(
    ("settings", "check", "verdict"),
    [
        ({"maxmemory": "1gb", "maxmemory-policy": "allkeys-lru"}, "eviction", FAILURE),
        ({"maxmemory-policy": "allkeys-lru"}, "eviction", WARNING),
        ({"maxmemory": "1mb"}, "memory", WARNING),
        ({"maxmemory": "1"}, "writes", FAILURE),
        ({"timeout": "60"}, "idle connections", WARNING),
        ({"maxclients": "2"}, "clients", WARNING),
    ],
)
async def test_a_wrong_setting_of_redis_is_named(
    redis: Redis, valkey_url: str, settings: dict[str, str], check: str, verdict: Verdict
) -> None:
    """Each with its cure."""
    before = {name: (await redis.config_get(name))[name] for name in settings}
    async with AsyncExitStack() as stack:
        for name, value in before.items():
            stack.push_async_callback(redis.config_set, name, value)
        for name, value in settings.items():
            await redis.config_set(name, value)
        async with build_redis(valkey_url, Redis) as client:
            asked = [one for one in RedisServer(client, valkey_url).checks if one.name == f"Redis: {check}"]
            found = _by_name(await ask_all(asked))

    assert found[check].verdict is verdict
    assert found[check].cure


async def test_a_user_without_tracking_is_told_that_workers_poll(redis: Redis, valkey_url: str) -> None:
    """And what it may not ask is no failure."""
    rules = ("on", ">secret", "~*", "+@all", "-client|tracking", "-config")
    await redis.execute_command("ACL", "SETUSER", "doctor", *rules)  # type: ignore[no-untyped-call] # redis-py
    url = make_url(valkey_url).set(username="doctor", password="secret")
    found = await _of_redis(url.render_as_string(hide_password=False))
    await redis.execute_command("ACL", "DELUSER", "doctor")  # type: ignore[no-untyped-call] # redis-py

    assert found["notifications"].verdict is WARNING
    assert found["idle connections"].verdict is NOT_SEEN


@pytest.mark.parametrize(
    ("seconds", "verdict"), [(0, WELL), (5, WARNING), (-5, WARNING), (3600, FAILURE), (-3600, FAILURE)]
)
def test_clocks_are_compared(seconds: int, verdict: Verdict) -> None:
    """Beyond what the round trip explains."""
    before = datetime.now(UTC)

    found = compare_clocks("clock", before, before + timedelta(seconds=seconds), before + timedelta(milliseconds=300))

    assert found.verdict is verdict


@pytest.mark.parametrize(("days", "verdict"), [(300, WELL), (3, WARNING), (-1, WARNING)])
def test_a_certificate_that_ends_soon_is_named(days: int, verdict: Verdict) -> None:
    """In time to renew it."""
    ends = datetime.now(UTC) + timedelta(days=days, hours=1)
    certificate = {"notAfter": ends.strftime("%b %d %H:%M:%S %Y GMT")}

    assert ssl.cert_time_to_seconds(certificate["notAfter"])
    assert judge_certificate("TLS", certificate).verdict is verdict
    assert judge_certificate("TLS", {}).verdict is WARNING


def test_settings_are_compared_with_deadlines(database: DatabaseSettings) -> None:
    """A command that may take longer than a job, and a grace that is shorter than most of them."""
    slow = database.model_copy(update={"command_timeout": timedelta(minutes=1)})
    brief = WorkerSettings(shutdown_grace=timedelta(seconds=1))
    queue = QueueSettings(url=SecretStr("redis://localhost"))

    usual = settings_checks(Settings(database, queue, WorkerSettings()), REGISTRY)
    wrong = settings_checks(Settings(slow, queue, brief), REGISTRY)

    assert {finding.verdict for finding in usual} == {WELL}
    assert {finding.verdict for finding in wrong} == {WARNING}
    assert json.dumps([vars(finding) for finding in wrong])
