"""Fills both servers with jobs of every state, in minutes: rows are made by PostgreSQL, keys by a script of Redis."""

import asyncio
import json
import time
from dataclasses import dataclass

import asyncpg
from redis.asyncio import Redis

from arqonce.connection.trend import nothing_counted

_AT_ONCE = 500_000
"""Rows of one statement."""


@dataclass(frozen=True)
class Amounts:
    """How many jobs there are of each kind of row. There are as many failed attempts and acts as dead letters."""

    receipts: int
    dead: int
    promised: int
    queued: int


_RECEIPTS = """
    INSERT INTO arqonce.receipts (job_id, job_name, request_hash, result, failure, attempt, finished_at)
    SELECT 'done-' || lpad(n::text, 10, '0'), CASE WHEN n % 5000 = 0 THEN 'rare' ELSE 'kind' || n % 10 END,
        decode(md5(n::text), 'hex'), CASE WHEN n % 50 > 0 THEN jsonb_build_object('id', n, 'name', 'User ' || n) END,
        CASE WHEN n % 50 = 0 THEN jsonb_build_object('type', 'name_taken', 'message', 'is taken') END, 1,
        now() - ($3 - n) * interval '60 ms'
    FROM generate_series($1::bigint, $2::bigint) AS n
"""

_DEAD = """
    INSERT INTO arqonce.dead_jobs
        (job_id, job_name, message, request_hash, reason, explanation, error, sqlstate, attempts, queue, died_at)
    SELECT 'dead-' || lpad(n::text, 10, '0'), CASE WHEN n % 1000 > 0 THEN 'kind' || n % 10 END,
        convert_to('{"t":1,"f":"kind","a":[],"k":{"name":"User ' || n || '"},"et":1}', 'UTF8'),
        decode(md5(n::text), 'hex'),
        CASE WHEN n % 20000 = 0 THEN 'rare'
            ELSE (ARRAY['OddError', 'attempts_exhausted', 'invalid_payload'])[1 + n % 3] END,
        'an explanation of some words', repeat('a place in the code ', 10), NULL, 5, 'arq:queue',
        now() - ($3 - n) * interval '600 ms'
    FROM generate_series($1::bigint, $2::bigint) AS n
"""

_PROMISED = """
    INSERT INTO arqonce.outbox
        (job_id, job_name, queue, message, request_hash, due_at, give_at, created_at, dispatched_at, dispatches)
    SELECT 'promised-' || lpad(n::text, 10, '0'), 'kind' || n % 10, 'arq:queue',
        convert_to('{"t":1,"f":"kind","a":[],"k":{"name":"User ' || n || '"},"et":1}', 'UTF8'),
        decode(md5(n::text), 'hex'),
        day, day, now(), NULL, 0
    FROM generate_series($1::bigint, $2::bigint) AS n, (SELECT now() + interval '1 day') AS later (day)
    WHERE $3 > 0
"""
"""All of them due at the same moment, as after a promise of a million jobs: the worst case of a list by time."""

_ATTEMPTS = """
    INSERT INTO arqonce.attempts (job_id, attempt, job_name, queue, code, error, worker, started_at, failed_at, counted)
    SELECT 'failed-' || n, 1, 'kind' || n % 10, 'arq:queue', (ARRAY['OddError', 'OSError', 'TimeoutError'])[1 + n % 3],
        repeat('a place in the code ', 10), 'host:' || n % 40, failed, failed, true
    FROM generate_series($1::bigint, $2::bigint) AS n,
        LATERAL (SELECT now() - ($3 - n) * interval '20 ms') AS at (failed)
"""

_AUDIT = """
    INSERT INTO arqonce.audit (at, who, act, target, number, why)
    SELECT now() - ($3 - n) * interval '10 s', CASE WHEN n % 1000 > 0 THEN 'joe' ELSE 'jane' END,
        CASE WHEN n = 1 THEN 'queue resume' ELSE 'dead retry' END, 'arq:queue', 1, 'a reason'
    FROM generate_series($1::bigint, $2::bigint) AS n
"""

_SCHEDULES = """
    INSERT INTO arqonce.schedules (name, definition, fleet, release, job_name, cron, zone, overlap, catch_up, next_slot,
        last_job_id, paused_until, paused_at, paused_by, paused_why)
    SELECT 'schedule' || n, 1, 'arq:queue', 'r', 'kind1', '0 * * * *', 'UTC', 'allow', interval '0', now(),
        'done-' || lpad(n::text, 10, '0'), CASE WHEN n % 20 = 0 THEN timestamptz '9999-01-01 00:00Z' END, now(), 'jane',
        'a fair'
    FROM generate_series($1::bigint, $2::bigint) AS n WHERE $3 > 0
"""

_MOST_SCHEDULES = 200

_QUEUE = """
for n = tonumber(ARGV[1]), tonumber(ARGV[2]) do
  local id = string.format('queued-%010d', n)
  local kind = n % 5000 == 0 and 'rare' or 'kind' .. n % 10
  redis.call('SET', 'arq:job:' .. id, '{"t":null,"f":"' .. kind .. '","a":[],"k":{"name":"User ' .. n .. '"},"et":1}')
  redis.call('ZADD', 'arq:queue', ARGV[3] + n % 1000, id)
end
"""

_OF_A_SCRIPT = 20_000


async def fill_postgres(url: str, amounts: Amounts) -> None:
    """Insert the rows, and let PostgreSQL look at its tables."""
    connection = await asyncpg.connect(url)
    await connection.execute("SET synchronous_commit = off")
    numbers = {
        _RECEIPTS: amounts.receipts,
        _DEAD: amounts.dead,
        _PROMISED: amounts.promised,
        _ATTEMPTS: amounts.dead,
        _AUDIT: amounts.dead,
        _SCHEDULES: _MOST_SCHEDULES,
    }
    for statement, number in numbers.items():
        for first in range(1, number + 1, _AT_ONCE):
            await connection.execute(statement, first, min(first + _AT_ONCE - 1, number), number)
    for table in ("receipts", "dead_jobs", "outbox", "attempts", "audit", "schedules"):
        await connection.execute(f"VACUUM (ANALYZE) arqonce.{table}")
    await connection.close()


async def fill_redis(url: str, amounts: Amounts) -> None:
    """Queue jobs that are due, a hundredth of them later, and write trends of a day."""
    now = int(time.time())
    async with Redis.from_url(url) as redis:
        script = redis.register_script(_QUEUE)
        late = amounts.queued // 100
        for first in range(1, amounts.queued + 1, _OF_A_SCRIPT):
            last = min(first + _OF_A_SCRIPT - 1, amounts.queued)
            due = now + (3600 if first > amounts.queued - late else -3600)
            await script(args=[first, last, 1000 * due])
            await asyncio.sleep(0)
        numbers = json.dumps([*(100 + at for at in range(len(nothing_counted()))), 1000, 0, 60_000])
        await redis.mset({f"arqonce:trend:{now // 60 - ago}:arq:queue": numbers for ago in range(1440)})
