"""The job by itself, in a real worker, and in workers that die at every point of it."""

from datetime import timedelta

import pytest

from arqonce import JobClient
from arqonce.testing.crash.crash_points import CrashPoints
from arqonce.testing.run_job import RunJob
from arqonce.testing.worker_process import StartWorker
from shop.payloads import AlreadyOrderedError, PlaceOrder

A_BOOK = PlaceOrder(customer="Jane", item="a book")


async def test_an_order_is_stored(run_job: RunJob) -> None:
    """For the customer who has placed it."""
    order = await run_job(A_BOOK)

    assert (order.customer, order.item) == ("Jane", "a book")


async def test_nothing_is_ordered_twice(run_job: RunJob) -> None:
    """The database refuses it, and the producer gets an error of its own class."""
    await run_job(A_BOOK)

    with pytest.raises(AlreadyOrderedError):
        await run_job(A_BOOK)


async def test_a_worker_runs_it(start_worker: StartWorker, jobs_redis_url: str) -> None:
    """One process, from the queue to the table and back."""
    start_worker()  # it has the jobs of arqonce_registry
    async with JobClient(jobs_redis_url) as client:
        order = await (await client.enqueue(A_BOOK)).result(timeout=timedelta(seconds=20))

    assert order.customer == "Jane"


async def test_a_crash_anywhere_leaves_one_order(crash_points: CrashPoints) -> None:
    """In the shop's own table, wherever a worker dies."""
    proof = await crash_points.prove(A_BOOK)

    assert [order["item"] for order in proof.state["table orders"]] == ["a book"]
