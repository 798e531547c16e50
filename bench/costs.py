"""What jobs cost for as long as they are kept: ``python -m bench.costs``. The figures of docs/operations.md.

Real workers on separate servers. Per job: bytes in Redis while it is queued and while its result is kept, bytes in
PostgreSQL by table and index, and bytes of the write-ahead log, once for jobs that are enqueued and once for promised
ones. Then receipts are deleted as fast as new ones come, for several times their number: how large the table stays, and
what vacuum has to do. Each run verifies that there is one receipt for each job.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce import DatabaseSettings, JobClient, enqueue_many_in, open_database
from arqonce.ledger.retention import STEP, delete_older
from bench.servers import BenchServers, Observer, open_bench_servers, open_observer
from jobs.payloads import CreateUser

Sessions = async_sessionmaker[AsyncSession]
Enqueue = Callable[[list[CreateUser]], Awaitable[None]]

_SIZES = """
    SELECT CASE WHEN c.relkind = 'i' THEN '  ' || c.relname ELSE n.nspname || '.' || c.relname END AS name,
        pg_total_relation_size(c.oid) AS total, pg_table_size(c.oid) AS own
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_index i ON i.indexrelid = c.oid
    WHERE n.nspname IN ('public', 'arqonce') AND c.relkind IN ('r', 'i') AND pg_table_size(c.oid) > 65536
    ORDER BY coalesce(i.indrelid, c.oid), c.relkind DESC"""

_LOG = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint"

_STEP = 1000

_BURSTS = 10
"""Most bursts for all jobs: one ends while the relay has promised jobs left, if it is faster than the relay."""


def _say(line: str = "") -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _environment(servers: BenchServers) -> dict[str, str]:
    return os.environ | {"DATABASE_URL": servers.postgres.url, "REDIS_URL": servers.valkey.url}


def _drain(servers: BenchServers) -> None:
    """Let a worker do all jobs, and end."""
    command = [sys.executable, "-m", "worker", "run", "--burst"]
    subprocess.run(command, env=_environment(servers), check=True, capture_output=True, timeout=600)


async def _one_way(servers: BenchServers, observer: Observer, jobs: int, way: str, enqueue: Enqueue) -> None:
    await observer.empty()
    await observer.postgres.execute("VACUUM FULL")
    empty, began = await observer.redis_memory(), await _written(observer)
    for at in range(0, jobs, _STEP):
        await enqueue([CreateUser(name=f"User {n}", email=f"user{n}@example.org") for n in range(at, at + _STEP)])
    promised = await _written(observer)
    queued = await observer.redis_memory()
    for _ in range(_BURSTS):
        if await observer.receipts() < jobs:
            await asyncio.to_thread(_drain, servers)
    done, kept = await _written(observer), await observer.redis_memory()
    found = (await observer.users(), await observer.receipts())
    if found != (jobs, jobs):
        sys.exit(f"{found} users and receipts of {jobs} jobs")
    _say(f"\n{jobs:,} jobs that were {way}, bytes per job")
    if way == "enqueued":
        _say(f"  Redis: queued {(queued - empty) / jobs:,.0f}, ended with its result {(kept - empty) / jobs:,.0f}")
    _say(f"  write-ahead log: until queued {(promised - began) / jobs:,.0f}, in all {(done - began) / jobs:,.0f}")
    for name, total, own in await observer.postgres.fetch(_SIZES):
        _say(f"  {name:44}{own / jobs:8,.1f}" + ("" if name.startswith(" ") else f"{total / jobs:10,.1f} with indexes"))


async def _written(observer: Observer) -> int:
    written: int = await observer.postgres.fetchval(
        "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint"
    )
    return written


_RECEIPTS = """INSERT INTO arqonce.receipts (job_id, job_name, request_hash, result, attempt, finished_at)
    SELECT lpad(to_hex(1790000000000 + 10 * n), 12, '0') || left(md5(n::text), 20), 'create_user',
        sha256(n::text::bytea),
        jsonb_build_object('id', n, 'name', 'User ' || n, 'email', 'user' || n || '@example.org', 'created_at', now()),
        1, now() - interval '30 days' + n * interval '10 ms'
    FROM generate_series($1::bigint, $2::bigint) AS n"""
"""As a service at 100 jobs a second writes them: ids, which are UUIDs of version 7, and times ascend."""


async def _replace(observer: Observer, sessions: Sessions, rows: int, *, times: int) -> None:
    """Let a tenth of ``rows`` receipts come, and the oldest tenth go, until each row was replaced ``times`` times."""
    await observer.empty()
    _say(f"\n{rows:,} receipts are kept, while {times * rows:,} come and go")
    tenth = rows // 10
    for turn in range(times * 10 + 10):
        await observer.postgres.execute(_RECEIPTS, turn * tenth + 1, (turn + 1) * tenth)
        if turn < 10:
            continue
        began, log = time.perf_counter(), await _written(observer)
        deleted = await _delete(observer, sessions, tenth)
        took, logged = time.perf_counter() - began, await _written(observer) - log
        began, log = time.perf_counter(), await _written(observer)
        await observer.postgres.execute("VACUUM arqonce.receipts")
        vacuum, swept = time.perf_counter() - began, await _written(observer) - log
        if turn % 10 == 9:
            sizes = {name.strip(): own for name, _, own in await observer.postgres.fetch(_SIZES)}
            parts = ", ".join(f"{name} {size / rows:,.0f}" for name, size in sizes.items() if "receipts" in name)
            _say(f"  bytes per row kept: {parts}")
            _say(f"    {deleted:,} deleted: {took:.1f} s, {logged / deleted:,.0f} bytes of log each")
            _say(f"    vacuum after it: {vacuum:.1f} s, {swept / deleted:,.0f} bytes of log for each")


async def _delete(observer: Observer, sessions: Sessions, count: int) -> int:
    """Delete the oldest receipts as a worker does, without its pauses."""
    age = await observer.postgres.fetchval(
        "SELECT now() - finished_at FROM arqonce.receipts ORDER BY finished_at OFFSET $1 LIMIT 1", count
    )
    deleted, step = 0, STEP
    while step == STEP:
        async with sessions.begin() as session:
            step = await delete_older(session, "receipts", age)
        deleted += step
    return deleted


async def _measure(servers: BenchServers, jobs: int, rows: int, times: int) -> None:
    settings = DatabaseSettings(url=SecretStr(servers.postgres.url))
    async with open_observer(servers) as observer, open_database(settings, pool_size=2) as sessions:
        async with JobClient(servers.valkey.url) as client:

            async def enqueue(users: list[CreateUser]) -> None:
                await client.enqueue_many(users)

            async def promise(users: list[CreateUser]) -> None:
                async with sessions.begin() as session:
                    await enqueue_many_in(session, users)

            await _one_way(servers, observer, jobs, "enqueued", enqueue)
            await _one_way(servers, observer, jobs, "promised", promise)
        await _replace(observer, sessions, rows, times=times)


def main() -> None:
    """Start the servers, measure, and stop them."""
    parser = argparse.ArgumentParser(description="What jobs cost for as long as they are kept.")
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--times", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, open_bench_servers(Path(folder)) as servers:
        asyncio.run(_measure(servers, arguments.jobs, arguments.rows, arguments.times))


if __name__ == "__main__":
    main()
