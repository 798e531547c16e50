"""Part 4: our worker with a growing queue and growing tables, and the costs of a job and of idling."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from urllib.parse import urlsplit, urlunsplit

import asyncpg
from pydantic import SecretStr

from arqonce.database.settings import DatabaseSettings
from arqonce.ledger.schema import upgrade_schemas
from bench.contenders import CONTENDERS
from bench.drain import WARM_UP, Drained, Rows, let_drain, wait, warm_worker
from bench.processes import ContenderError
from bench.servers import open_observer
from bench.stage import Stage
from jobs.registry import REGISTRY

_OURS = CONTENDERS["ours"]

_FILL = """
for n = tonumber(ARGV[1]), tonumber(ARGV[2]) do
  local id = string.format('%08x%024x', (n * 2654435761) % 4294967296, n)
  redis.call('SET', 'arq:job:' .. id, '{"t":null,"f":"create_user","a":[],"k":{"name":"User ' .. n .. '","email":"user'
    .. n .. '@example.org"},"et":' .. ARGV[3] .. '}', 'PX', 604800000)
  redis.call('ZADD', KEYS[1], ARGV[3], id)
end
"""
"""Queues jobs like any producer, without sending each over the wire. The ids are scattered like random ones."""

_AT_ONCE = 10_000
"""Jobs queued by one call of the script."""

_FIRST = 1_000_000
"""Number of the first user of these jobs."""


@dataclass(frozen=True)
class Backlog:
    """A run with a long queue: its rate, and the memory of queue and worker."""

    rate: float
    redis_bytes_per_job: float
    worker_bytes: int


async def fill(stage: Stage, count: int) -> None:
    """Queue ``count`` jobs."""
    now = int((await stage.observer.redis.time())[0]) * 1000
    script = stage.observer.redis.register_script(_FILL)
    for at in range(0, count, _AT_ONCE):
        last = min(at + _AT_ONCE, count) - 1
        await script(keys=["arq:queue"], args=[_FIRST + at, _FIRST + last, now])


async def behind_backlog(stage: Stage, *, depth: int, count: int) -> Backlog:
    """Let a worker drain ``count`` jobs of a queue with ``depth`` more jobs, which remain.

    Raises:
        ContenderError: it did not.
    """
    await stage.observer.empty()
    async with warm_worker(stage, _OURS) as (worker, _):
        worker.hold()
        empty = await stage.observer.redis_memory()
        await fill(stage, depth + count)
        await stage.observer.settle()
        full = await stage.observer.redis_memory()
        started = await _clock(stage)
        worker.let_go()
        await wait(worker, _drawn(stage, WARM_UP + count), 60)
        worker.hold()
        await asyncio.sleep(0.1)  # the server still executes what it has already received
        ended, users = await stage.observer.last_commit(), await stage.observer.users() - WARM_UP
        resident = worker.resident_bytes()
    if not count * 0.9 <= users <= count + depth:
        raise ContenderError(f"{users} users after {count} of {count + depth} jobs")
    return Backlog(users / (ended - started), (full - empty) / (depth + count), resident)


def _drawn(stage: Stage, count: int) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        return await stage.observer.ids_drawn() >= count

    return look


async def _clock(stage: Stage) -> float:
    now: float = await stage.observer.postgres.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8")
    return now


_USERS = """INSERT INTO users (name, email)
    SELECT 'Stored ' || n, 'stored' || n || '@example.org' FROM generate_series($1::bigint, $2::bigint) AS n"""

_RECEIPTS = """INSERT INTO arqonce.receipts (job_id, job_name, request_hash, result, attempt)
    SELECT md5(n::text), 'create_user', sha256(n::text::bytea),
        jsonb_build_object('id', n, 'name', 'Stored ' || n, 'email', 'stored' || n || '@example.org',
            'created_at', now()), 1
    FROM generate_series($1::bigint, $2::bigint) AS n"""

_PARTS = 20
"""Statements per table: a single one would be one long transaction, and would fail late."""


@asynccontextmanager
async def stored_database(stage: Stage) -> AsyncIterator[Stage]:
    """Yield a stage on a separate database with empty tables; drop the database afterwards."""
    url = urlunsplit(urlsplit(stage.target.database_url)._replace(path="/stored"))
    await stage.observer.postgres.execute("CREATE DATABASE stored")
    try:
        await asyncio.to_thread(upgrade_schemas, DatabaseSettings(url=SecretStr(url)), REGISTRY.schemas)
        async with open_observer(stage.servers, url) as observer:
            yield replace(stage, observer=observer, target=replace(stage.target, database_url=url))
    finally:
        await stage.observer.postgres.execute("DROP DATABASE stored WITH (FORCE)")


async def store(stage: Stage, first: int, last: int) -> None:
    """Store users and receipts with these numbers, in both tables at once, and vacuum as autovacuum would later."""
    await asyncio.gather(*(insert(stage, statement, first, last) for statement in (_USERS, _RECEIPTS)))
    await stage.observer.postgres.execute("VACUUM (ANALYZE) users, arqonce.receipts")


async def insert(stage: Stage, statement: str, first: int, last: int, *more: int) -> None:
    """Execute a statement that inserts the rows from ``$1`` to ``$2`` in parts, on a connection of its own."""
    connection = await asyncpg.connect(stage.target.database_url)
    step = max(1, (last - first + 1) // _PARTS)
    for at in range(first, last + 1, step):
        await connection.execute(statement, at, min(last, at + step - 1), *more, timeout=600)
    await connection.close()


async def drain_on(stage: Stage, count: int, *, first: int) -> Drained:
    """Drain a queue on servers that keep what they have; ``first`` is the number of the first new user.

    Raises:
        ContenderError: as ``drain``.
    """
    await stage.observer.postgres.execute("CHECKPOINT")
    before = Rows(await stage.observer.users(), await stage.observer.receipts())
    drawn = await stage.observer.ids_drawn()
    if drawn != before.users:
        raise ContenderError(f"{drawn} ids drawn for {before.users} users")
    async with warm_worker(stage, _OURS, before=before.users, first=first) as (worker, producer):
        worker.hold()
        if producer is None:
            raise ContenderError("it has no producer")
        await producer.do("fill", kind="create_user", first=first + WARM_UP, count=count)
        return await let_drain(stage, _OURS, worker, count, before=before)


@dataclass(frozen=True)
class Cost:
    """The cost of one job while a queue is drained."""

    commands: float
    calls: dict[str, float]
    reads: float
    transactions: float


async def cost(stage: Stage, count: int) -> Cost:
    """Drain a queue; return what each job cost."""
    observer = stage.observer
    await observer.empty()
    async with warm_worker(stage, _OURS) as (worker, producer):
        worker.hold()
        if producer is None:
            raise ContenderError("it has no producer")
        await producer.do("fill", kind="create_user", first=WARM_UP, count=count)
        calls, reads, transactions = (
            await observer.commands_by_name(), await observer.redis_reads(), await observer.transactions()
        )  # fmt: skip
        run = await let_drain(stage, _OURS, worker, count)
        after, reads = await observer.commands_by_name(), await observer.redis_reads() - reads
    await asyncio.sleep(1)  # sessions report their transactions when they end
    looks = run.seconds / 0.02  # our own polls are transactions, too
    return Cost(
        run.redis_commands / count,
        {name: (made - calls.get(name, 0)) / count for name, made in after.items() if made > calls.get(name, 0)},
        reads / count,
        max(0.0, await observer.transactions() - transactions - looks) / count,
    )


@dataclass(frozen=True)
class Idle:
    """The total cost of idle workers: CPU in percent of a core, Redis commands per second and per enqueue."""

    cpu: float
    commands: float
    commands_per_enqueue: float


_ENQUEUED = 20
"""Jobs enqueued to measure the cost of one enqueue."""


async def idle(stage: Stage, *, processes: int, seconds: float) -> Idle:
    """Measure ``processes`` idle workers for ``seconds``, then enqueue one job at a time."""
    await stage.observer.empty()
    async with warm_worker(stage, _OURS, processes=processes) as (worker, producer):
        if producer is None:
            raise ContenderError("it has no producer")
        await asyncio.sleep(2 + processes / 10)
        cpu, commands = worker.cpu_seconds(), await stage.observer.redis_commands()
        await asyncio.sleep(seconds)
        cpu = worker.cpu_seconds() - cpu
        idle_rate = (await stage.observer.redis_commands() - commands - 1) / seconds
        commands = await stage.observer.redis_commands()
        pause = [0.1, 0.1]
        await producer.do("commits", first=10_000, count=_ENQUEUED, pause=pause)
        await asyncio.sleep(0.3)
        commands = await stage.observer.redis_commands() - commands - 1
        own = idle_rate * (_ENQUEUED * pause[0] + 0.3)
    return Idle(100 * cpu / seconds, idle_rate, max(0.0, (commands - own) / _ENQUEUED))
