"""A machine whose clock is an hour off still sees queues as they are, and says that its clock is off."""

import time

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from arqonce.connection.direct import DirectConnection
from arqonce.connection.presence import live_workers, what_they_do
from arqonce.connection.queue_kinds import oldest_jobs, read_kinds
from arqonce.connection.queue_listing import QueueState, list_queue
from arqonce.connection.queue_status import read_queue_status
from arqonce.connection.requeue import requeue
from arqonce.engine.presence import Presence


@pytest.fixture(params=[3600, -3600])
async def ahead(request: pytest.FixtureRequest, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> int:
    """Queue one job that is due now and one that is due in a minute, then put this process's clock wrong."""
    now, true_time = time.time() * 1000, time.time
    await redis.mset({f"arq:job:{job_id}": '{"f": "create_user"}' for job_id in ("due", "later")})
    await redis.zadd("arq:queue", {"due": now - 1000, "later": now + 60_000})
    seconds: int = request.param
    monkeypatch.setattr(time, "time", lambda: true_time() + seconds)
    return seconds


async def test_queues_are_counted_by_the_clock_of_redis(ahead: int, redis: Redis) -> None:
    """Else deferred jobs would seem to have waited for an hour, and raise an alarm."""
    found = await read_queue_status(redis, "arq:queue")
    kinds = await read_kinds(redis, "arq:queue")
    page = await list_queue(redis, "arq:queue", QueueState.DEFERRED, job_name=None, after=None, limit=5)

    assert ahead
    assert (found.waiting, found.deferred, kinds.waiting) == (1, 1, {"create_user": 1})
    assert found.oldest_waiting is not None
    assert found.oldest_waiting.total_seconds() < 60
    assert ([row.job_id for row in page.rows], await oldest_jobs(redis, "arq:queue", None, limit=5)) == (
        ["later"], ["due"],
    )  # fmt: skip


async def test_what_is_put_back_is_due_now(ahead: int, redis: Redis) -> None:
    """And not in an hour, if the clock of the operator's machine is ahead."""
    await requeue(redis, "arq:queue", {"again": b'{"f": "create_user"}'})

    assert ahead
    assert await oldest_jobs(redis, "arq:queue", None, limit=5) == ["due", "again"]
    assert (await redis.zscore("arq:queue", "again") or 0) > (await redis.zscore("arq:queue", "due") or 0)


async def test_a_worker_says_that_its_clock_is_off(ahead: int, redis: Redis) -> None:
    """In its log, once, and to operators."""
    line = DirectConnection(redis)
    presence = Presence(redis, line, ["arq:queue"], doing=dict, obey=lambda _quiet: False)
    with capture_logs() as logs:
        for _ in range(2):
            presence.hurry()
            await presence.do()
    await line.aclose()
    (doing,) = await what_they_do(redis, await live_workers(redis))

    assert doing is not None
    assert abs(doing["clock_offset"] + ahead) < 60
    assert [round(log["ahead_seconds"] / 3600) for log in logs] == [ahead / 3600]
