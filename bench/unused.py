"""Part 4: servers full of what our worker does not use, and what its looks and those of operators then take."""

import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import ClassVar

import asyncpg
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce import JobSpec, Payload, Registry, Result, Schedule, open_database
from arqonce.database.settings import DatabaseSettings
from arqonce.ledger.outbox import dispatch_batch, is_owed, queues_behind
from arqonce.overview.looks import Looks
from arqonce.overview.status import read_ledger_state
from arqonce.relay.epoch import RedisEpochs
from arqonce.relay.unserved import BEHIND
from arqonce.schedules.scheduler import Scheduler
from bench.growth import insert
from bench.processes import ROOT
from bench.stage import Stage

_QUEUE = "arq:queue"


@dataclass(frozen=True)
class Unused:
    """How much there is of it."""

    rows: int
    """Dead letters, and as many promised jobs that are due tomorrow."""

    schedules: int
    queues: int
    """Other queues, each with three deferred jobs."""


_ID = "lpad(to_hex(n * 4294967295 / $3::bigint), 8, '0') || left(md5(n::text), 24)"
"""Ids that are spread over all there can be, as random ones are, and yet inserted in order, which is fast."""

_MESSAGE = """'{"t":1790000000000,"f":"create_user","a":[],"k":{"name":"User","email":"user@example.org"}}'::bytea"""

_LETTERS = f"""INSERT INTO arqonce.dead_jobs
    (job_id, job_name, message, request_hash, reason, explanation, error, attempts, queue, died_at)
    SELECT {_ID}, 'kind' || n % 10, {_MESSAGE}, sha256(''), 'attempts_exhausted',
        'it has failed too often', 'ConnectionError (users.py:12)', 5, '{_QUEUE}',
        now() - ($3::bigint - n) * interval '60 ms'
    FROM generate_series($1::bigint, $2::bigint) AS n"""  # noqa: S608 - constants

_PROMISES = f"""INSERT INTO arqonce.outbox (job_id, job_name, queue, message, request_hash, due_at, give_at)
    SELECT {_ID}, 'create_user', CASE n % 2 WHEN 0 THEN '{_QUEUE}' ELSE 'other:' || n % 1000 END, {_MESSAGE},
        sha256(''), later, later
    FROM generate_series($1::bigint, $2::bigint) AS n, LATERAL (
        SELECT now() + interval '1 day' + n * interval '1 ms' AS later) AS due"""  # noqa: S608 - constants
"""Half of them of the worker's own queue, the others of 500 that it does not serve."""

_SCHEDULES = """INSERT INTO arqonce.schedules
    (name, definition, fleet, release, cron, zone, overlap, catch_up, next_slot, job_name)
    SELECT 'other-' || n, n, 'other:' || n % 1000, 'r' || n % 1000, '0 0 * * *', 'UTC', 'allow', interval '1 hour',
        now() + (n - $3::bigint / 20) * interval '1 day' / $3::bigint, 'create_user'
    FROM generate_series($1::bigint, $2::bigint) AS n"""
"""Spread over a day. The slots of a twentieth have come, and no worker decides on them."""

_QUEUES = """
local due = tonumber(ARGV[2])
for n = 1, tonumber(ARGV[1]) do
  for at = 1, 3 do
    local id = string.format('%08x%024x', (n * 2654435761 + at) % 4294967296, n)
    redis.call('SET', 'arq:job:' .. id, '{"t":null,"f":"create_user","a":[],"k":{"name":"U"},"et":1}', 'PX', 604800000)
    redis.call('ZADD', 'other:' .. n, due, id)
  end
end
"""


_INDEXES = """SELECT indexdef, format('DROP INDEX %I.%I', schemaname, indexname) AS without FROM pg_indexes
    WHERE schemaname = 'arqonce' AND tablename IN ('dead_jobs', 'outbox') AND indexname NOT LIKE '%pkey'"""


async def fill_ledger(stage: Stage, unused: Unused) -> None:
    """Insert the rows, each table by a connection of its own, and vacuum as autovacuum would later.

    Indexes but the primary keys are dropped before and created after it, in two thirds of the time.
    """
    indexes = await stage.observer.postgres.fetch(_INDEXES)
    for index in indexes:
        await stage.observer.postgres.execute(index["without"])
    await asyncio.gather(
        insert(stage, _LETTERS, 1, unused.rows, unused.rows),
        insert(stage, _PROMISES, 1, unused.rows, unused.rows),
        insert(stage, _SCHEDULES, 1, unused.schedules, unused.schedules),
    )
    await asyncio.gather(*(_create(stage, index["indexdef"]) for index in indexes))
    await stage.observer.postgres.execute("VACUUM (ANALYZE) arqonce.dead_jobs, arqonce.outbox, arqonce.schedules")


async def _create(stage: Stage, index: str) -> None:
    connection = await asyncpg.connect(
        stage.target.database_url, server_settings={"maintenance_work_mem": "256MB"}, timeout=30
    )
    await connection.execute(index, timeout=600)
    await connection.close()


async def fill_redis(stage: Stage, queues: int) -> None:
    """Let Redis have nothing but so many queues that nobody serves."""
    await stage.observer.redis.flushall()
    tomorrow = int(time.time() + 86_400) * 1000
    await stage.observer.redis.register_script(_QUEUES)(args=[queues, tomorrow])


class _Nothing(Payload[Result]):
    job_name: ClassVar[str] = "nothing"


async def _nothing(_session: AsyncSession, _payload: _Nothing) -> Result:
    return Result()


_FAR = datetime(2100, 1, 1, tzinfo=UTC)

_LOOKS, _COMMANDS = 30, 5
"""How often each look, and the command, is timed."""


async def time_looks(stage: Stage) -> AsyncIterator[tuple[str, float]]:
    """Yield the looks that find nothing to do, and their median times in ms."""
    database = DatabaseSettings(url=SecretStr(stage.target.database_url))
    own = Schedule("own", _Nothing(), cron="0 0 * * *", starts=_FAR)
    async with AsyncExitStack() as stack:
        sessions = await stack.enter_async_context(open_database(database, pool_size=1))
        session = await stack.enter_async_context(sessions())
        epochs = RedisEpochs(stage.observer.redis, sessions, [_QUEUE])
        scheduler = Scheduler(sessions, Registry(JobSpec(_Nothing, _nothing), schedules=[own]), queue=_QUEUE)
        looks: dict[str, Callable[[], Awaitable[object]]] = {
            "relay: epoch": epochs.read,
            "relay: jobs to give": lambda: dispatch_batch(
                session, epochs={_QUEUE: 1}, keep=timedelta(days=9), most_bytes=2**23
            ),
            "relay: queues that no relay serves": lambda: queues_behind(session, BEHIND),
            "relay: a queue that no worker serves": lambda: is_owed(session, _QUEUE, BEHIND),
        }
        for name, look in looks.items():
            yield name, await _median_ms(look, _LOOKS)
        await session.rollback()
        await session.close()
        await scheduler.renew()
        yield "scheduler: slots that have come", await _median_ms(scheduler.promise_due, _LOOKS)
        status = read_ledger_state
        yield "status: its statements", await _median_ms(lambda: status(Looks(sessions), database), _COMMANDS)
    yield "status: the command", await _median_ms(lambda: asyncio.to_thread(_run_status, stage), _COMMANDS)


async def _median_ms(look: Callable[[], Awaitable[object]], times: int) -> float:
    """Return the median time of a look, after one that prepares statements."""
    await look()
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        await look()
        taken.append(1000 * (time.perf_counter() - began))
    return statistics.median(taken)


def _run_status(stage: Stage) -> None:
    servers = {"DATABASE_URL": stage.target.database_url, "REDIS_URL": stage.target.redis_url}
    command = [sys.executable, "-m", "worker", "status"]
    subprocess.run(command, env=os.environ | servers, cwd=ROOT, check=True, capture_output=True, timeout=60)
