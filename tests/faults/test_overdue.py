"""Handlers that go on after their deadline. With real workers, whose patience is shorter."""

import asyncio
import sys
from datetime import timedelta

import pytest
from redis.asyncio import Redis

from arqonce import JobClient
from arqonce.failures import DeadlineExceededError
from tests.conftest import StartWorker
from tests.faults.escapes import NAME, MisbehaveShortly
from tests.faults.observe import Sessions, letters, users_by_name, wait_for_empty_queue

SOON = timedelta(seconds=30)

IMPATIENT = """
from datetime import timedelta
from arqonce.arq import functions
from arqonce.engine import overdue
functions.MARGIN = overdue._MARGIN = overdue._LOOK = timedelta(milliseconds=100)
from worker.__main__ import main
main()
"""


async def test_a_handler_that_swallows_its_cancellation_holds_neither_slot_nor_transaction(
    start_worker: StartWorker, client: JobClient, redis: Redis, sessions: Sessions
) -> None:
    """Some seconds after its deadline its attempt is over, told as such; jobs behind and beside it are done."""
    worker = start_worker(
        sys.executable,
        "-c",
        IMPATIENT,
        "run",
        WORKER_REGISTRY=NAME,
        WORKER_MAX_JOBS="1",
        WORKER_SHUTDOWN_GRACE="500ms",
        DATABASE_APPLICATION_NAME="overdue",
    )
    swallower = await client.enqueue(MisbehaveShortly(how="swallows", name="swallower"))
    names = ["beside", "behind"]
    handles = await client.enqueue_many([MisbehaveShortly(how="well", name=name) for name in names])

    answers = await asyncio.gather(*(handle.result(timeout=SOON) for handle in handles))

    with pytest.raises(DeadlineExceededError, match=r"went on after its deadline of 0\.3 s: it swallows"):
        await swallower.result(timeout=SOON)
    await wait_for_empty_queue(redis)
    assert [answer.name for answer in answers] == names
    assert (await users_by_name(sessions), await letters(sessions)) == (
        dict.fromkeys(names, 1),
        {swallower.job_id: "deadline_exceeded"},
    )
    assert worker.process.poll() is None
