"""Jobs that handlers promise in their own transaction, on the real database."""

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from arqonce import JobSpec, Promised, enqueue_in, enqueue_in_sync, enqueue_many_in
from arqonce.execution.attempt import Dispatcher
from arqonce.execution.batch import run_batch
from arqonce.execution.delivery import Delivery
from arqonce.execution.verdict import RetryLater
from arqonce.ledger.tables import DeadJob
from arqonce.running import ReadOnlyJobError
from arqonce.wire.codec import decode
from arqonce.wire.message import read_message
from tests.arqonce.follow_ups import REGISTRY, Branch, FanOut, Leaf, Stored

Sessions = async_sessionmaker[AsyncSession]
Handler = Callable[[AsyncSession, FanOut], Awaitable[Stored]]
JOB = Delivery("order-4712", 1, (), {"number": 3})


def _spec(handler: Handler, *, reads_only: bool = False) -> JobSpec[Any, Any]:
    return JobSpec(FanOut, handler, reads_only=reads_only)


async def _outbox(sessions: Sessions) -> dict[str, tuple[str, str, str | None]]:
    """Return name, queue and parent of each promised job."""
    async with sessions() as session:
        rows = await session.execute(text("SELECT job_id, job_name, queue, message FROM arqonce.outbox"))
        return {row.job_id: (row.job_name, row.queue, read_message(row.message).parent) for row in rows}


async def test_each_attempt_promises_the_same_jobs_and_only_the_last_one_counts(sessions: Sessions) -> None:
    """On the queue where it was claimed, with its id at the beginning of theirs; a second delivery adds nothing."""
    told: list[list[str]] = []

    async def promise(session: AsyncSession, payload: FanOut) -> Stored:
        leaves = await enqueue_many_in(session, [Leaf(name=f"n{at}") for at in range(payload.number)])
        again = await enqueue_in(session, Leaf(name="again"), unique_for=timedelta(minutes=1))
        own = await enqueue_in(session, Leaf(name="own"), key="own", queue="elsewhere")
        told.append([promised.job_id for promised in (*leaves, again, own)])
        if len(told) == 1:
            raise OSError
        return Stored(follow_ups=tuple(told[-1]))

    dispatcher = Dispatcher(sessions, queue="first-of-several")
    with pytest.raises(RetryLater):
        await dispatcher.run(_spec(promise), JOB._replace(queue="orders"))
    after_failure = await _outbox(sessions)
    for attempt in (2, 3):
        await dispatcher.run(_spec(promise), JOB._replace(attempt=attempt, queue="orders"))

    ids = told[0]
    assert (after_failure, told, len(set(ids))) == ({}, [ids, ids], 5)
    assert all(job_id.startswith("order-4712~") and len(job_id) == 31 for job_id in ids[:4])
    expected = dict.fromkeys(ids, ("leaf", "orders", "order-4712")) | {"own": ("leaf", "elsewhere", "order-4712")}
    assert await _outbox(sessions) == expected


async def test_of_two_workers_that_run_one_job_one_promises(sessions: Sessions) -> None:
    """The second one's promises go with its transaction, and it answers from the receipt."""
    both = asyncio.Barrier(2)

    async def promise(session: AsyncSession, payload: FanOut) -> Stored:
        await both.wait()
        leaves = await enqueue_many_in(session, [Leaf(name=f"n{at}") for at in range(payload.number)])
        return Stored(follow_ups=tuple(leaf.job_id for leaf in leaves))

    answers = await asyncio.gather(*(Dispatcher(sessions).run(_spec(promise), JOB) for _ in range(2)))

    assert answers[0] == answers[1]
    assert set(await _outbox(sessions)) == set(answers[0]["follow_ups"])


async def _by_connection(session: AsyncSession) -> Promised[Stored]:
    return await enqueue_in(await session.connection(), Leaf(name="x"))


async def _by_driver(session: AsyncSession) -> Promised[Stored]:
    raw = await (await session.connection()).get_raw_connection()
    return await enqueue_in(raw.driver_connection, Leaf(name="x"))


async def _by_sync_session(session: AsyncSession) -> Promised[Stored]:
    return await session.run_sync(lambda own: enqueue_in_sync(own, Leaf(name="x")))


async def _by_sync_connection(session: AsyncSession) -> Promised[Stored]:
    return await session.run_sync(lambda own: enqueue_in_sync(own.connection(), Leaf(name="x")))


async def _in_a_task(session: AsyncSession) -> Promised[Stored]:
    return await asyncio.create_task(enqueue_in(session, Leaf(name="x")))


WAYS = [_by_connection, _by_driver, _by_sync_session, _by_sync_connection, _in_a_task]


@pytest.mark.parametrize("way", WAYS, ids=[way.__name__ for way in WAYS])
async def test_whatever_is_in_the_jobs_transaction_promises_follow_ups(
    sessions: Sessions, way: Callable[[AsyncSession], Awaitable[Promised[Stored]]]
) -> None:
    """The session's connection, its driver's, the synchronous ones inside, and tasks."""

    async def promise(session: AsyncSession, _payload: FanOut) -> Stored:
        return Stored(follow_ups=((await way(session)).job_id,))

    await Dispatcher(sessions, queue="orders").run(_spec(promise), JOB)

    ((job_id, told),) = (await _outbox(sessions)).items()
    assert (job_id[:11], told) == ("order-4712~", ("leaf", "orders", "order-4712"))


async def test_a_service_s_own_connection_promises_as_everywhere(sessions: Sessions) -> None:
    """In a handler by another engine, which commits by itself; and with a session of the workers' after the job."""
    other = create_async_engine(sessions.kw["bind"].url)

    async def promise(session: AsyncSession, _payload: FanOut) -> Stored:
        await session.execute(text("SELECT 1"))
        async with other.begin() as connection:
            await enqueue_in(connection, Leaf(name="x"))
        async with AsyncSession(other) as own, own.begin():
            await enqueue_in(own, Leaf(name="x"))
        return Stored()

    await Dispatcher(sessions, queue="orders").run(_spec(promise), JOB)
    async with sessions.begin() as session:
        await enqueue_in(session, Leaf(name="x"))
    await other.dispose()

    found = await _outbox(sessions)
    assert list(found.values()) == [("leaf", "arq:queue", None)] * 3
    assert not any("~" in job_id for job_id in found)


async def test_a_batch_promises_on_its_queue_with_random_ids(sessions: Sessions) -> None:
    """They commit with the receipts of all its jobs, so that none is promised twice."""
    spec = REGISTRY["branch"]
    batch = [Delivery(f"j{at}", 1, (), {"name": f"n{at}"}) for at in range(3)]

    await run_batch(Dispatcher(sessions, queue="orders"), spec, batch)
    await run_batch(Dispatcher(sessions, queue="orders"), spec, batch)

    found = await _outbox(sessions)
    assert list(found.values()) == [("leaf", "orders", None)] * 3
    assert not any("~" in job_id for job_id in found)
    assert Branch.job_name == spec.name


async def test_a_read_only_job_that_promises_is_told_why_it_cannot(sessions: Sessions) -> None:
    """At its first attempt, before anything is sent."""

    async def promise(session: AsyncSession, _payload: FanOut) -> Stored:
        await enqueue_in(session, Leaf(name="x"))
        return Stored()

    with pytest.raises(ReadOnlyJobError, match=r"handler of fan_out promises a job, .* reads_only=True: remove one"):
        await Dispatcher(sessions).run(_spec(promise, reads_only=True), JOB)

    assert await _outbox(sessions) == {}


async def test_a_follow_up_s_follow_up_begins_with_the_first_job_and_its_letter_names_its_parent(
    sessions: Sessions,
) -> None:
    """However long the chain: ids do not grow. Whoever retries the dead letter sends the parent again."""

    async def promise(session: AsyncSession, _payload: FanOut) -> Stored:
        return Stored(follow_ups=((await enqueue_in(session, FanOut(number=1))).job_id,))

    async def fail(_session: AsyncSession, _payload: FanOut) -> Stored:
        raise TypeError

    ids = ["o" * 200]
    for _ in range(3):
        done = await Dispatcher(sessions).run(_spec(promise), JOB._replace(job_id=ids[-1]))
        ids += done["follow_ups"]
    with pytest.raises(TypeError):
        await Dispatcher(sessions).run(_spec(fail), Delivery(ids[-1], 5, (), {"number": 1}, parent=ids[-2]))

    assert [(len(job_id), job_id[:170]) for job_id in ids[1:]] == [(191, "o" * 170)] * 3
    assert len(set(ids)) == 4
    async with sessions() as session:
        letter = await session.get(DeadJob, ids[-1])
    assert letter is not None
    assert decode(letter.message)["p"] == ids[-2]


async def test_a_job_that_has_ended_keeps_no_session(sessions: Sessions) -> None:
    """Not until a garbage collection, nor for a task that outlives it."""
    lasting: list[asyncio.Task[None]] = []
    known: list[weakref.ref[AsyncSession]] = []

    async def promise(session: AsyncSession, _payload: FanOut) -> Stored:
        lasting.append(asyncio.create_task(asyncio.sleep(60)))
        known.append(weakref.ref(session))
        return Stored()

    gc.disable()
    try:
        await Dispatcher(sessions).run(_spec(promise), JOB)
        kept = [session() for session in known]
    finally:
        gc.enable()
    lasting[0].cancel()
    await asyncio.wait(lasting)

    assert kept == [None]
