"""Workers on the page, and an order to one of them."""

import asyncio
import json
import time

from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.connection.presence import WORKERS_KEY, LiveWorker, announce
from arqonce.ledger.audit import list_acts
from tests.arqonce.console.conftest import Browser
from tests.lines import show

WORKER = LiveWorker("0123456789abcdef", "host", 17, ["arq:queue"])

JOB = {"id": "job-1", "job_name": "create_user", "since": 0.0}


def _doing(state: str = "working") -> dict[str, object]:
    job = JOB | {"since": time.time() - 90}
    return {"state": state, "version": "1.2.3", "kinds": ["create_user"], "slots": 10, "running": 1, "jobs": [job]}


async def _obey(redis: Redis) -> None:
    """Do what a worker does: look for an order every now and then, and say that it is obeyed."""
    while (await show(redis, WORKER, _doing())).order is None:
        await asyncio.sleep(0.05)
    quiet = (await show(redis, WORKER, _doing())).order
    await show(redis, WORKER, _doing("drained" if quiet else "working"))


async def test_a_worker_and_what_it_runs(rob: Browser, redis: Redis) -> None:
    """Where it runs, how much, which job for how long, and what is wrong with it."""
    await announce(redis, WORKER)
    await show(redis, WORKER, _doing())

    listed, shown = await rob.until("/workers", "host:17"), await rob.get(f"/worker?id={WORKER.id}")
    await show(redis, WORKER, _doing() | {"block": {"job_name": "create_user", "at": "jobs/users.py:12 run"}})
    await rob.until("/", "create_user has blocked the event loop of workers on host")

    assert "host:17 Works arq:queue 1 10 create_user 1 min 30 s" in listed.page.text
    assert "job-1 create_user 1 min 30 s" in shown.page.text
    assert "Drain" not in listed.page.text  # rob is a reader


async def test_a_worker_is_drained(jane: Browser, redis: Redis, sessions: async_sessionmaker[AsyncSession]) -> None:
    """The preview names its jobs; the order is on record with its author, and the page says that it was obeyed."""
    await announce(redis, WORKER)
    await show(redis, WORKER, _doing())
    preview = await jane.get(f"/workers/drain?id={WORKER.id}")
    obeying = asyncio.create_task(_obey(redis))

    done = await jane.send("/workers/drain", **preview.page.fields(), reason="a new machine")

    await obeying
    assert "which runs one job" in preview.page.text
    assert "create_user job-1" in preview.page.text
    assert "host:17 takes no more jobs It runs one job." in done.page.text
    async with sessions() as session:
        (act,) = await list_acts(session, since=None, limit=10)
    assert (act.who, act.act, act.why) == ("jane", "workers drain", "a new machine")


async def test_a_worker_that_is_gone(jane: Browser, redis: Redis) -> None:
    """Is no error of the page's, and no order is given."""
    await redis.zadd(WORKERS_KEY, {json.dumps({"id": "x", "host": "h", "pid": 1, "queues": []}): 1})

    answers = [await jane.get("/worker?id=x"), await jane.send("/workers/drain", id="x")]

    assert [answer.status for answer in answers] == [404, 404]
    assert await redis.keys("arqonce:quiet:*") == []
