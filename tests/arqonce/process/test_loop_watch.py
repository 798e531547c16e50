"""Whoever blocks the event loop is named while it does."""

import asyncio
import time
from datetime import timedelta
from typing import ClassVar

import pytest
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from structlog.testing import capture_logs

from arqonce.client.client import JobClient
from arqonce.connection.presence import live_workers, what_they_do
from arqonce.execution.attempt import Dispatcher
from arqonce.execution.delivery import Delivery
from arqonce.payloads import Payload, Result
from arqonce.process.loop_watch import Standstill, warn_of_blocks, watch_loop
from arqonce.rest import Rest
from arqonce.spec import JobSpec, Registry
from tests.conftest import StartWorker, wait_until, wait_until_async


class Slept(Result):
    """Nothing."""


class Sleep(Payload[Slept]):
    """Sleep, and let nobody else do anything."""

    job_name: ClassVar[str] = "sleep"
    name: str


def _wait() -> None:
    time.sleep(1.6)


async def sleep(_session: AsyncSession, _payload: Sleep) -> Slept:
    """Call what waits."""
    _wait()
    return Slept()


REGISTRY = Registry(JobSpec(Sleep, sleep))


async def test_a_worker_names_what_blocks_it(start_worker: StartWorker, client: JobClient, redis: Redis) -> None:
    """In its log, while the job runs, and then to operators."""
    worker = start_worker(WORKER_REGISTRY=f"{__name__}:REGISTRY", WORKER_LEASE="1s")

    await client.enqueue(Sleep(name="Jane"))

    wait_until(lambda: "blocked for longer than a lease" in worker.log, 20)
    assert '"job_name": "sleep"' in worker.log
    assert "process/test_loop_watch.py" in worker.log
    assert "Jane" not in worker.log
    await wait_until_async(lambda: _is_said(redis), 20)


async def _is_said(redis: Redis) -> bool:
    said = await what_they_do(redis, await live_workers(redis))
    return any(doing and doing["block"] and doing["block"]["job_name"] == "sleep" for doing in said)


async def test_a_handler_that_blocks_is_named_once_for_each_limit(sessions: async_sessionmaker[AsyncSession]) -> None:
    """First as a warning; then, when other workers take its jobs over, as an error. Nothing of the payload is told."""
    delivery = Delivery("j1", 1, (), {"name": "Jane"})
    with capture_logs() as logs, warn_of_blocks(timedelta(seconds=1)):
        await asyncio.sleep(0.3)
        await Dispatcher(sessions).run(JobSpec(Sleep, sleep), delivery)

    told = [log for log in logs if "blocked" in log["event"]]
    assert [log["log_level"] for log in told] == ["warning", "error"]
    assert {(log["job_name"], log["at"].split(":")[0], log["at"].split()[-1]) for log in told} == {
        ("sleep", "process/test_loop_watch.py", "_wait")
    }
    assert "to_thread" in told[0]["cure"]
    assert "Jane" not in str(told)


async def test_a_loop_that_turns_is_left_alone_however_busy() -> None:
    """Many short pieces are no standstill; nor is waiting."""
    found: list[Standstill] = []
    with watch_loop(found.append, [timedelta(milliseconds=500)]):
        limit = time.monotonic() + 1
        while time.monotonic() < limit:
            time.sleep(0.01)  # noqa: ASYNC251 - a busy loop
            await asyncio.sleep(0)
        await asyncio.sleep(0.7)

    assert found == []


async def test_each_standstill_is_told_anew() -> None:
    """Between them the loop has turned."""
    found: list[Standstill] = []
    with watch_loop(found.append, [timedelta(milliseconds=500)]):
        for _ in range(2):
            time.sleep(1.1)  # noqa: ASYNC251 - what no handler should do
            await asyncio.sleep(0.3)

    assert [(one.job_name, one.at.split()[-1]) for one in found] == [(None, "test_each_standstill_is_told_anew")] * 2


@pytest.mark.parametrize("has_job", [True, False])
async def test_a_watch_that_sleeps_is_woken_by_the_first_job(
    monkeypatch: pytest.MonkeyPatch,
    has_job: bool,  # noqa: FBT001 - pytest's parameter
) -> None:
    """Idle, it looks every four seconds, and misses a short block, which no job can have caused."""
    monkeypatch.setattr("arqonce.process.loop_watch._STAYS_BUSY", 0)
    rest, found = Rest(), list[Standstill]()
    rest.is_busy = lambda: False
    with watch_loop(found.append, [timedelta(milliseconds=500)], rest):
        if has_job:
            rest.is_busy = lambda: True
            rest.on_jobs()
        time.sleep(1.1)  # noqa: ASYNC251 - what no handler should do

    assert [one.at.split()[-1] for one in found] == ["test_a_watch_that_sleeps_is_woken_by_the_first_job"] * has_job


async def test_a_block_of_an_idle_loop_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """After three of its looks, and not before: a look may just miss the timer, and the process may be stopped."""
    monkeypatch.setattr("arqonce.process.loop_watch._STAYS_BUSY", 0)
    monkeypatch.setattr("arqonce.process.loop_watch._IDLE_LOOK", timedelta(milliseconds=300))
    rest, found = Rest(), list[Standstill]()
    rest.is_busy = lambda: False
    with watch_loop(found.append, [timedelta(milliseconds=250)], rest):
        for seconds in (0.45, 1.6):
            time.sleep(seconds)  # noqa: ASYNC251 - as above
            await asyncio.sleep(0.35)

    assert len(found) == 1
