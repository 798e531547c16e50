"""The job by itself, and in a real worker beside the jobs of users-worker."""

from datetime import timedelta

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce import JobClient
from arqonce.testing.crash.crash_points import CrashPoints
from arqonce.testing.run_job import RunJob
from arqonce.testing.worker_process import StartWorker
from db.tables import User
from jobs import CreateUser
from shop.payloads import PlaceOrder, UnknownBuyerError

SOON = timedelta(seconds=20)


async def test_an_order_is_stored(run_job: RunJob) -> None:
    """For a user that there is."""
    jane = await run_job(CreateUser(name="Jane"))

    order = await run_job(PlaceOrder(user_id=jane.id, item="a book"))

    assert (order.user_id, order.item) == (jane.id, "a book")


async def test_nobody_orders_nothing(run_job: RunJob) -> None:
    """The database refuses it, and the producer gets an error of its own class."""
    with pytest.raises(UnknownBuyerError):
        await run_job(PlaceOrder(user_id=1, item="a book"))


async def test_one_worker_runs_both_projects_jobs(start_worker: StartWorker, jobs_redis_url: str) -> None:
    """One process, one queue."""
    start_worker()  # it has the jobs of jobs_registry
    async with JobClient(jobs_redis_url) as client:
        jane = await (await client.enqueue(CreateUser(name="Jane"))).result(timeout=SOON)

        order = await (await client.enqueue(PlaceOrder(user_id=jane.id, item="a book"))).result(timeout=SOON)

    assert order.user_id == jane.id


async def _jane_is_stored(session: AsyncSession) -> None:
    session.add(User(id=1, name="Jane"))


async def test_a_crash_anywhere_leaves_one_order(crash_points: CrashPoints) -> None:
    """In the shop's own table, wherever a worker dies."""
    proof = await crash_points.prove(PlaceOrder(user_id=1, item="a book"), given=_jane_is_stored)

    assert [order["item"] for order in proof.state["table orders"]] == ["a book"]
