"""Pages of the jobs of a queue in Redis."""

import json
import time

import pytest
from redis.asyncio import Redis

from arqonce.connection import queue_listing
from arqonce.connection.queue_listing import QueuePage, QueuePlace, QueueState, list_queue
from arqonce.wire.keys import PARKED_MS, PAUSED_MS

_PAST = 1_700_000_000_000


async def _add(redis: Redis, **jobs: tuple[str, float]) -> None:
    """Queue jobs by id: each with its name and score."""
    for job_id, (name, score) in jobs.items():
        await redis.set(f"arq:job:{job_id}", json.dumps({"f": name}))
        await redis.zadd("q", {job_id: score})


async def _walk(redis: Redis, state: QueueState, limit: int, job_name: str | None = None) -> list[str]:
    ids, after, pages = list[str](), None, 0
    while pages == 0 or after is not None:
        page: QueuePage = await list_queue(redis, "q", state, job_name=job_name, after=after, limit=limit)
        ids, after, pages = [*ids, *(row.job_id for row in page.rows)], page.next, pages + 1
        assert pages < 100
    return ids


async def test_each_state_has_its_jobs(redis: Redis) -> None:
    """Running jobs, ours and those of arq's workers, are among neither the waiting nor the deferred ones."""
    later = time.time() * 1000 + 60_000
    await _add(
        redis, due=("good", _PAST), arqs=("good", _PAST), ours=("good", later), later=("good", later),
        held=("good", PAUSED_MS + _PAST), parked=("good", PARKED_MS + _PAST),
    )  # fmt: skip
    await redis.zadd("q:leases", {"ours": later})
    for job_id in ("arqs", "ours"):
        await redis.set(f"arq:in-progress:{job_id}", "1")

    found = {state.value: await _walk(redis, state, 10) for state in QueueState}
    (held,) = (await list_queue(redis, "q", QueueState.HELD, job_name=None, after=None, limit=1)).rows

    assert found == {
        "waiting": ["due"],
        "deferred": ["later"],
        "running": ["ours"],
        "held": ["held"],
        "parked": ["parked"],
    }
    assert held.at is not None
    assert held.at.timestamp() * 1000 == _PAST


@pytest.mark.parametrize("limit", [1, 2, 7, 50])
async def test_pages_show_each_job_once(redis: Redis, limit: int) -> None:
    """Also where many are due at the same time, as they are when they were enqueued together."""
    jobs = {f"{at:02}": ("good", float(_PAST + at // 10)) for at in range(30)}
    await _add(redis, **jobs)

    assert await _walk(redis, QueueState.WAITING, limit) == sorted(jobs)


async def test_a_page_goes_on_where_the_last_one_ended(redis: Redis) -> None:
    """What was taken from the head of the queue meanwhile moves nothing."""
    await _add(redis, **{f"{at:02}": ("good", float(_PAST + at)) for at in range(10)})
    first = await list_queue(redis, "q", QueueState.WAITING, job_name=None, after=None, limit=4)
    await redis.zrem("q", "00", "01", "02")

    second = await list_queue(redis, "q", QueueState.WAITING, job_name=None, after=first.next, limit=4)

    assert [row.job_id for row in second.rows] == ["04", "05", "06", "07"]


async def test_jobs_of_one_kind_are_looked_for_in_so_many(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page says that it has not seen all, and the next one goes on."""
    monkeypatch.setattr(queue_listing, "MOST_READ", 4)
    monkeypatch.setattr(queue_listing, "_STEP", 2)
    await _add(redis, **{f"{at:02}": ("rare" if at % 5 == 0 else "good", _PAST) for at in range(20)})

    page = await list_queue(redis, "q", QueueState.WAITING, job_name="rare", after=None, limit=10)

    assert ([row.job_id for row in page.rows], page.is_partial, page.next) == (["00"], True, QueuePlace(_PAST, 4))
    assert await _walk(redis, QueueState.WAITING, 10, "rare") == ["00", "05", "10", "15"]


async def test_what_cannot_be_read_is_listed_too(redis: Redis) -> None:
    """A job without a message, one whose message names nothing, and an id that is no text."""
    await redis.zadd("q", {b"gone": 1, b"odd": 2, b"\xff": 3})
    await redis.set("arq:job:odd", "no JSON")

    page = await list_queue(redis, "q", QueueState.WAITING, job_name=None, after=None, limit=10)

    assert [(row.job_id, row.job_name) for row in page.rows] == [("gone", None), ("odd", None), ("\ufffd", None)]
