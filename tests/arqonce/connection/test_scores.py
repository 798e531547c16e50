"""Anybody who may enqueue may give a job any score; whoever looks at the queue reads it nevertheless."""

import time
from datetime import timedelta

import pytest
from redis.asyncio import Redis

from arqonce.connection.job_keys import read_job_keys
from arqonce.connection.queue_kinds import read_kinds
from arqonce.connection.queue_listing import QueueState, list_queue
from arqonce.connection.queue_status import read_queue_status

QUEUE = "arq:queue"

SCORES = [float("-inf"), -1e308, -5.0, 0.0, 1.0, 1e10, 5e-324, 1e13, 1.5e14, 2.5e14, 9e15, 1e20, 1e308, float("inf")]


@pytest.mark.parametrize("score", SCORES)
async def test_a_queue_is_read_whatever_a_score_is(redis: Redis, score: float) -> None:
    """One job was enough to end every worker that measured the queue, and the command status."""
    await redis.set("arq:job:odd", '{"f": "create_user"}')
    await redis.zadd(QUEUE, {"odd": score})

    found = await read_queue_status(redis, QUEUE)
    keys = await read_job_keys(redis, "odd", [QUEUE])
    pages = [await list_queue(redis, QUEUE, state, job_name=None, after=None, limit=5) for state in QueueState]

    assert found.waiting + found.deferred + found.held == 1
    assert (found.oldest_waiting is None) == (found.waiting == 0)
    assert len(keys.places) == 1
    assert ["odd"] in [[row.job_id for row in page.rows] for page in pages]
    assert (await read_kinds(redis, QUEUE)).waiting in ({}, {"create_user": 1})


async def test_a_score_that_is_no_time_ages_no_queue(redis: Redis) -> None:
    """The oldest job of the others tells how long jobs wait."""
    await redis.zadd(QUEUE, {"odd": float("-inf"), "zero": 0, "other": time.time() * 1000 - 5000})

    found = await read_queue_status(redis, QUEUE)

    assert found.waiting == 3
    assert found.oldest_waiting is not None
    assert timedelta(seconds=4) <= found.oldest_waiting < timedelta(minutes=1)
