"""PostgreSQL answers and cannot be written to, while jobs of all kinds run. With a real standby and real workers."""

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest
from pydantic import SecretStr
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from arqonce import JobClient, enqueue_in
from arqonce.database.engine import open_database
from arqonce.database.settings import DatabaseSettings
from arqonce.embedded import PostgresServer, StandbyServer, open_postgres, open_standby
from arqonce.ledger.schema import upgrade_schemas
from arqonce.process.health_file import read_health
from jobs import CreateUser, FindUser, GetOrCreateUser
from jobs.registry import REGISTRY
from tests import warm
from tests.conftest import StartWorker, WorkerProcess, wait_until_async
from tests.faults.observe import Sessions, attempts, events, users_by_name, wait_for_empty_queue
from tests.faults.proxy import Proxy, open_proxy
from tests.tables import EMPTY_TABLES, TABLES

SOON = timedelta(seconds=30)
UNWRITABLE = "PostgreSQL cannot be written to: waiting until it can"
READ_ONLY = "default_transaction_read_only is on for this user, database or server"


@dataclass(frozen=True)
class Ground:
    """A primary and its standby, each by itself and behind one address."""

    primary: PostgresServer
    standby: StandbyServer
    proxy: Proxy

    @property
    def url(self) -> str:
        """The address that leads to one of them."""
        return self.primary.url.replace(f":{_port(self.primary)}/", f":{self.proxy.port}/")

    def switch(self, server: PostgresServer) -> None:
        """Let new connections reach this server."""
        self.proxy.target = _port(server)

    async def set(self, *statements: str) -> None:
        """Execute statements at the primary, whatever it is set to."""
        connection = await asyncpg.connect(self.primary.url, server_settings={"default_transaction_read_only": "off"})
        for statement in statements:
            await connection.execute(statement)
        await connection.close()


def _port(server: PostgresServer) -> int:
    return urlsplit(server.url).port or 0


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """Run the servers for all tests here."""
    directory: Path = tmp_path_factory.mktemp("ground")
    with open_postgres(directory / "primary") as primary:
        upgrade_schemas(DatabaseSettings(url=SecretStr(primary.url)), REGISTRY.schemas)
        with open_standby(primary, directory / "standby") as standby, open_proxy(_port(primary)) as proxy:
            yield Ground(primary, standby, proxy)


@pytest.fixture
async def own_sessions(ground: Ground) -> AsyncIterator[Sessions]:
    """Yield sessions on the primary, and empty its tables."""
    ground.switch(ground.primary)
    url = SecretStr(f"{ground.primary.url}?target_session_attrs=any")
    async with open_database(DatabaseSettings(url=url), pool_size=5) as sessions:
        yield sessions
        async with sessions.begin() as session:
            await session.execute(EMPTY_TABLES)


@dataclass
class Feed:
    """Jobs of all kinds that arrive all the time."""

    client: JobClient
    redis: Redis
    sessions: Sessions
    names: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    is_over: bool = False

    async def once(self) -> None:
        """Enqueue one of each kind: in a batch, alone, refused, aborted, unknown, and promised."""
        number = uuid4().hex
        await self._add("batch", CreateUser(name=f"batch {number}"))
        await self._add("alone", GetOrCreateUser(name=f"alone {number}", email=f"{number}@example.org"))
        await self.client.enqueue(FindUser(id=1))
        await self.client.enqueue(CreateUser(name="Taken", email="taken@example.org"))
        aborted = await self.client.enqueue(CreateUser(name="Aborted"), delay=timedelta(milliseconds=20))
        await self.redis.zadd("arq:abort", {aborted.job_id: time.time() * 1000})
        await self.redis.set(f"arq:job:{number}", json.dumps({"f": "nothing", "a": [], "k": {}, "et": 0}))
        await self.redis.zadd("arq:queue", {number: 0})
        self.unknown.append(number)
        with suppress(SQLAlchemyError):  # who promises meets the outage, too
            async with self.sessions.begin() as session:
                await enqueue_in(session, CreateUser(name=f"promised {number}"))
            self.names.append(f"promised {number}")

    async def _add(self, kind: str, payload: CreateUser | GetOrCreateUser) -> None:
        """Enqueue a job that is in its last attempt."""
        handle = await self.client.enqueue(payload, key=f"{kind}-{uuid4().hex}", delay=timedelta(milliseconds=20))
        await self.redis.set(f"arq:retry:{handle.job_id}", 4)
        self.names.append(payload.name)

    async def run(self) -> None:
        """Enqueue until it is over; the last jobs are counted, too."""
        while not self.is_over:
            await self.once()
            await asyncio.sleep(0.1)


@pytest.fixture
async def feed(client: JobClient, redis: Redis, own_sessions: Sessions) -> Feed:
    """Keep jobs coming until the test has seen enough."""
    async with own_sessions.begin() as session:
        await session.execute(text("INSERT INTO users (name, email) VALUES ('Taken', 'taken@example.org')"))
    return Feed(client, redis, own_sessions)


@asynccontextmanager
async def _feeding(feed: Feed) -> AsyncIterator[None]:
    task = asyncio.create_task(feed.run())
    try:
        yield
    finally:
        feed.is_over = True
        await task


async def _become_standby(ground: Ground) -> None:
    ground.switch(ground.standby)
    ground.proxy.cut()


async def _become_primary(ground: Ground) -> None:
    ground.switch(ground.primary)


async def _become_read_only(ground: Ground) -> None:
    await ground.set("ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")


async def _become_writable(ground: Ground) -> None:
    await ground.set("ALTER SYSTEM RESET default_transaction_read_only", "SELECT pg_reload_conf()")


async def _fill_disk(ground: Ground) -> None:
    function = "CREATE OR REPLACE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS "
    await ground.set(
        function + "$$ BEGIN RAISE SQLSTATE '53100'; END $$",
        *(f"CREATE TRIGGER fail BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION fail()" for table in TABLES),
    )


async def _empty_disk(ground: Ground) -> None:
    await ground.set(*(f"DROP TRIGGER fail ON {table}" for table in TABLES))


OUTAGES = {
    "it is a standby": (_become_standby, _become_primary),
    READ_ONLY: (_become_read_only, _become_writable),
    "its disk is full": (_fill_disk, _empty_disk),
}


@pytest.mark.parametrize("reason", OUTAGES)
async def test_while_it_cannot_be_written_to_nothing_is_claimed_and_no_attempt_counts(
    reason: str, ground: Ground, start_worker: StartWorker, feed: Feed, own_sessions: Sessions
) -> None:
    """Jobs of all kinds, in their last attempt, outlast it; the log and ``health`` say why, and all goes on at once."""
    worker = start_worker(DATABASE_URL=ground.url)
    begin, end = OUTAGES[reason]
    async with _feeding(feed):
        await wait_until_async(lambda: _has_ended(own_sessions, 20), 10)
        await begin(ground)
        try:
            await wait_until_async(lambda: _is_told(worker, f"PostgreSQL cannot be written to: {reason}"), 8)
            before = await _ended(own_sessions)
        finally:
            await end(ground)
        since = time.monotonic()
        await wait_until_async(lambda: _has_ended(own_sessions, before + 1), 10)
        resumed = time.monotonic() - since

    await wait_for_empty_queue(feed.redis)
    await wait_until_async(lambda: _owes_nothing(own_sessions), 10)

    assert await _connections_to(ground.standby) == 0

    stored = await users_by_name(own_sessions)
    assert resumed < 4  # 0.3 to 0.7 s on a machine that does nothing else
    assert {name: stored[name] for name in feed.names} == dict.fromkeys(feed.names, 1)
    assert await _letters(own_sessions) == dict.fromkeys(feed.unknown, ("unknown_job", 1))
    assert attempts(worker) == {1, 5}
    assert [line["reason"] for line in events(worker, UNWRITABLE)] == [reason]


async def _is_told(worker: WorkerProcess, problem: str) -> bool:
    return read_health(worker.health) == [problem]


async def _ended(sessions: Sessions) -> int:
    async with sessions() as session:
        return await session.scalar(text("SELECT count(*) FROM arqonce.receipts")) or 0


async def _has_ended(sessions: Sessions, count: int) -> bool:
    return await _ended(sessions) >= count


async def _owes_nothing(sessions: Sessions) -> bool:
    async with sessions() as session:
        return not await session.scalar(text("SELECT count(*) FROM arqonce.outbox"))


async def _connections_to(server: PostgresServer) -> int:
    """Count the connections of workers that have stayed."""
    connection = await asyncpg.connect(server.url)
    count: int = await connection.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'users-worker'"
    )
    await connection.close()
    return count


async def _letters(sessions: Sessions) -> dict[str, tuple[str, int]]:
    async with sessions() as session:
        rows = await session.execute(text("SELECT job_id, reason, attempts FROM arqonce.dead_jobs"))
        return {row.job_id: (row.reason, row.attempts) for row in rows}


async def test_of_several_hosts_the_one_that_was_promoted_is_used(
    tmp_path: Path, start_worker: StartWorker, client: JobClient, redis: Redis
) -> None:
    """The primary is killed under a running worker, and nobody tells the worker where the new one is."""
    with open_postgres(tmp_path / "first") as first:
        await asyncio.to_thread(upgrade_schemas, DatabaseSettings(url=SecretStr(first.url)), REGISTRY.schemas)
        with open_standby(first, tmp_path / "second") as second:
            url = first.url.removesuffix("/postgres") + f",127.0.0.1:{_port(second)}/postgres"
            worker = start_worker(DATABASE_URL=url)
            await (await client.enqueue(CreateUser(name="Before"))).result(timeout=SOON)
            first.process.send_signal(signal.SIGQUIT)
            await asyncio.to_thread(first.process.wait)
            handles = await client.enqueue_many([CreateUser(name=f"During {number}") for number in range(20)])
            await wait_until_async(lambda: _says(worker, UNWRITABLE), 10)
            await asyncio.to_thread(second.promote)
            promoted = time.monotonic()

            await asyncio.gather(*(handle.result(timeout=SOON) for handle in handles))
            took = time.monotonic() - promoted
            await wait_for_empty_queue(redis)

            async with open_database(DatabaseSettings(url=SecretStr(second.url)), pool_size=1) as sessions:
                assert (took < 4, await _letters(sessions), attempts(worker)) == (True, {}, {1}), took


async def _says(worker: WorkerProcess, words: str) -> bool:
    return words in worker.log


@pytest.mark.usefixtures("starts_processes")
@pytest.mark.parametrize("way", ["", "?target_session_attrs=any"])
async def test_no_command_starts_on_a_standby(way: str, ground: Ground, environment: dict[str, str]) -> None:
    """Workers, relays and migrations end with exit code 4, and the status says why nothing runs."""
    url = ground.standby.url + way
    commands = [["run"], ["run", "--processes", "2"], ["relay"], ["migrate"], ["status"]]

    ends = await asyncio.gather(*(asyncio.to_thread(_run, command, url, environment) for command in commands))

    assert [end.returncode for end in ends] == [4, 4, 4, 4, 0]
    for end in ends:
        assert "cannot be written to: it is a standby. Let DATABASE_URL point to the primary" in end.stderr
        assert "worker ready" not in end.stderr


def _run(command: list[str], url: str, environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    variables = environment | {"DATABASE_URL": url}
    arguments = [sys.executable, "-m", "worker", *command]
    return warm.run(arguments, variables, timeout=30)
