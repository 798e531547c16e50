"""Slow work in real workers: through ends of workers, short leases and aborts."""

import asyncio

import pytest
from redis.asyncio import Redis

from arqonce import JobClient
from arqonce.failures import JobAbortedError
from tests.conftest import StartWorker, wait_until_async
from tests.faults.observe import Sessions, letters, users_by_name
from tests.faults.slow import NAME, BankService, Charge, open_service


async def _called(bank: BankService, times: int) -> None:
    async def is_called() -> bool:
        return bank.calls.total() >= times

    await wait_until_async(is_called, 20)


async def test_an_end_of_the_worker_gives_the_job_back_uncounted(
    start_worker: StartWorker, client: JobClient, redis: Redis, sessions: Sessions
) -> None:
    """The next one calls with the same key; leases are renewed for as long as the work lasts."""
    settings = {"WORKER_REGISTRY": NAME, "WORKER_LEASE": "1s", "WORKER_SHUTDOWN_GRACE": "100ms"}
    async with open_service() as bank:
        bank.answers.clear()
        first = start_worker(**settings)
        job = await client.enqueue(Charge(name="Jane", port=bank.port))
        await _called(bank, 1)
        code = await asyncio.to_thread(first.stop)
        attempts = await redis.get(f"arq:retry:{job.job_id}")
        start_worker(**settings)
        await _called(bank, 2)
        start_worker(**settings)  # would find a job whose lease had ended
        await asyncio.sleep(2.5)  # two leases: there is no state to wait for
        bank.answers.set()
        charged = await job.result(timeout=20)

    assert (code, attempts) == (0, None)
    assert charged.charge == "charge for Jane"
    assert (list(bank.calls.values()), list(bank.charges.values())) == ([2], ["Jane"])
    assert (await users_by_name(sessions), await letters(sessions)) == ({"Jane": 1}, {})


async def test_work_that_ends_within_the_grace_is_stored(
    start_worker: StartWorker, client: JobClient, sessions: Sessions
) -> None:
    """And an abort ends the work of another job."""
    async with open_service() as bank:
        bank.answers.clear()
        worker = start_worker(WORKER_REGISTRY=NAME, WORKER_SHUTDOWN_GRACE="20s")
        aborted, stored = await client.enqueue_many([Charge(name=name, port=bank.port) for name in ("Joe", "Jane")])
        await _called(bank, 2)
        await aborted.abort()
        with pytest.raises(JobAbortedError):
            await aborted.result(timeout=20)
        worker.process.terminate()

        async def is_stopping() -> bool:
            return "worker is stopping" in worker.log

        await wait_until_async(is_stopping, 10)
        bank.answers.set()
        code = await asyncio.to_thread(worker.process.wait, 20)
        charged = await stored.result(timeout=5)

    assert (code, charged.charge) == (0, "charge for Jane")
    assert await users_by_name(sessions) == {"Jane": 1}
