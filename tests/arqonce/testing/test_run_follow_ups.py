"""What ``run_job`` and ``enqueued`` show of the jobs that a job promises, and how they run them."""

from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce import JobFailedError, JobSpec, Registry, enqueue_in
from arqonce.testing.enqueued import EnqueuedJobs
from arqonce.testing.run_job import RunJob
from tests.arqonce.follow_ups import REGISTRY, Branch, Chain, FanOut, Leaf, Stored, store_leaf


@pytest.fixture
def jobs_registry() -> Registry:
    """Use the jobs that promise jobs."""
    return REGISTRY


def _registry(handler: Callable[[AsyncSession, FanOut], Awaitable[Stored]]) -> Registry:
    return Registry(JobSpec(FanOut, handler, max_attempts=1), JobSpec(Leaf, store_leaf))


async def _names(session: AsyncSession) -> list[str]:
    return list(await session.scalars(text("SELECT name FROM users ORDER BY name")))


async def test_an_outcome_shows_the_follow_ups_of_its_job_alone(run_job: RunJob, session: AsyncSession) -> None:
    """Typed, with their ids and times; not what the test or another job has promised."""
    await enqueue_in(session, Leaf(name="of the test"), key="own")
    other = await run_job.outcome(FanOut(number=1), key='an"id"\\')

    outcome = await run_job.outcome(FanOut(number=2), key="k")

    assert [job.read(Leaf).name for job in outcome.follow_ups] == [leaf.name for leaf in map(_leaf, (0, 1))]
    assert {job.job_id for job in outcome.follow_ups} == set(outcome.get().follow_ups)
    assert outcome.follow_up(Leaf, name="leaf 1") == _leaf(1)
    with pytest.raises(AssertionError, match=r"Leaf\(name='x'\) was not promised by job k; it promised leaf\(name="):
        outcome.follow_up(Leaf, name="x")
    with pytest.raises(TypeError, match="Leaf has no field nam: it has name"):
        outcome.follow_up(Leaf, nam="x")
    assert len(other.follow_ups) == 1
    assert len(await run_job.promised()) == 4


def _leaf(number: int) -> Leaf:
    return Leaf(name=f"leaf {number}")


async def test_drain_runs_all_that_was_promised_to_the_end(run_job: RunJob, session: AsyncSession) -> None:
    """By a job, by a batch, by the test; and what these promise."""
    await enqueue_in(session, Leaf(name="of the test"), delay=timedelta(days=1))
    await run_job(Chain(left=2), key="k")
    await run_job.batch([Branch(name="b1"), Branch(name="b2")])

    outcomes = await run_job.drain()

    assert sorted(len(outcome.follow_ups) for outcome in outcomes) == [0, 0, 0, 0, 1]
    assert {type(outcome.get()) for outcome in outcomes} == {Stored}  # as ``run_job`` returns it, and not JSON
    stored = ["b1", "b2", "chain 0", "chain 1", "chain 2", "leaf of b1", "leaf of b2", "of the test"]
    assert (await _names(session), await run_job.promised()) == (stored, [])


async def test_a_job_that_fails_has_no_follow_ups(run_job: RunJob, session: AsyncSession) -> None:
    """They went with its transaction; one that drain runs and that fails is raised in the end."""

    async def fail(session: AsyncSession, _payload: FanOut) -> Stored:
        await enqueue_in(session, Leaf(name="x"))
        raise JobFailedError("no")

    outcome = await run_job.outcome(FanOut(number=1), registry=_registry(fail))
    await enqueue_in(session, FanOut(number=1))
    await enqueue_in(session, Leaf(name="y"))
    with pytest.raises(JobFailedError, match="no"):
        await run_job.drain(registry=_registry(fail))

    assert (outcome.follow_ups, await run_job.promised(), await _names(session)) == ((), [], ["y"])


async def test_enqueued_records_and_drains_follow_ups(enqueued: EnqueuedJobs, run_job: RunJob) -> None:
    """As it does what services promise; many at once, too."""
    await run_job(FanOut(number=2))

    enqueued.assert_enqueued(Leaf, name="leaf 1")
    outcomes = await enqueued.drain()

    assert [(job.name, job.is_promised) for job in enqueued.jobs] == [("leaf", True)] * 2
    assert (len(outcomes), await run_job.promised()) == (2, [])
