"""Slow work runs at least once and without a connection; its outcome is stored once."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, ClassVar

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.client.client import JobClient
from arqonce.database.engine import open_database
from arqonce.database.settings import DatabaseSettings
from arqonce.execution import phases
from arqonce.execution.attempt import Dispatcher
from arqonce.execution.delivery import Delivery
from arqonce.execution.verdict import RetryLater
from arqonce.failures import DeadlineExceededError, JobFailedError
from arqonce.job import JobContext
from arqonce.ledger.recorded import receipt_by_job_id
from arqonce.payloads import Payload, Result
from arqonce.phases import Phases
from arqonce.spec import JobSpec, Registry
from arqonce.testing.run_job import RunJob
from db.users import insert_user
from tests.arqonce.conftest import BuildWorker, build_recording_worker
from tests.conftest import wait_until_async
from tests.faults.observe import letters

Sessions = async_sessionmaker[AsyncSession]


class Charged(Result):
    """What came of it."""

    charge: str


class Charge(Payload[Charged]):
    """Charge a card."""

    job_name: ClassVar[str] = "charge"
    name: str = "Jane"


class _Bank:
    """Is called in the work, and stores: each in the way of the test."""

    def __init__(self, *works: Exception | None, stores: tuple[str | Exception, ...] = ()) -> None:
        self.works = list(works)
        self.stores = list(stores)
        self.keys: list[str] = []
        self.stored: list[tuple[int, str]] = []

    async def work(self, payload: Charge, job: JobContext) -> str:
        self.keys.append(job.idempotency_key)
        if self.works and (error := self.works.pop(0)) is not None:
            raise error
        return f"charge for {payload.name}"

    async def store(self, session: AsyncSession, payload: Charge, charge: str, job: JobContext) -> Charged:
        await insert_user(session, payload.name)
        self.stored.append((job.attempt, charge))
        trouble = self.stores.pop(0) if self.stores else None
        if isinstance(trouble, Exception):
            raise trouble
        if trouble is not None:
            await session.execute(text(trouble))
        return Charged(charge=charge)

    def spec(self, **options: Any) -> JobSpec[Any, Any]:  # noqa: ANN401 - handed on
        return JobSpec(Charge, Phases(work=self.work, store=self.store), **options)


def _delivery(attempt: int = 1) -> Delivery:
    return Delivery("j1", attempt, (), {})


async def _users(sessions: Sessions) -> int:
    async with sessions() as session:
        return await session.scalar(text("SELECT count(*) FROM users")) or 0


_DEADLOCK = "DO $$ BEGIN RAISE SQLSTATE '40P01'; END $$"
_LOSS = "SELECT pg_terminate_backend(pg_backend_pid())"


async def test_a_store_that_fails_for_now_runs_again_without_the_work(sessions: Sessions) -> None:
    """A deadlock counts as an attempt, a lost connection does not; the outcome stays in memory."""
    bank = _Bank(stores=(_DEADLOCK, _LOSS, KeyError("a bug")))

    answer = await phases.run(Dispatcher(sessions), bank.spec(), _delivery())

    assert answer == {"charge": "charge for Jane"}
    assert len(bank.keys) == 1
    assert bank.stored == [(attempt, "charge for Jane") for attempt in (1, 2, 2, 3)]
    assert await _users(sessions) == 1


async def test_a_store_that_never_succeeds_is_dead_with_its_own_error(sessions: Sessions) -> None:
    """After as many attempts as the job has; a card is not charged for each."""
    bank = _Bank(stores=(KeyError("1"), KeyError("2"), KeyError("3")))

    with pytest.raises(KeyError, match="3"):
        await phases.run(Dispatcher(sessions), bank.spec(max_attempts=3), _delivery())

    assert (len(bank.keys), len(bank.stored), await _users(sessions)) == (1, 3, 0)
    assert await letters(sessions) == {"j1": "KeyError"}


async def test_without_patience_the_work_runs_again_with_its_key(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it does in another worker, which has no outcome in memory."""
    monkeypatch.setattr(phases, "_PATIENCE", timedelta(0))
    bank, dispatcher = _Bank(stores=(_DEADLOCK,)), Dispatcher(sessions)

    with pytest.raises(RetryLater):
        await phases.run(dispatcher, bank.spec(), _delivery())
    await phases.run(dispatcher, bank.spec(), _delivery(2))

    assert len(bank.keys) == 2
    assert len(set(bank.keys)) == 1
    assert await _users(sessions) == 1


async def test_a_job_that_has_ended_does_not_work_again(sessions: Sessions) -> None:
    """Not even at its first attempt: a duplicate of a key whose result has expired is one."""
    bank, dispatcher = _Bank(), Dispatcher(sessions)

    answers = [await phases.run(dispatcher, bank.spec(), _delivery(attempt)) for attempt in (1, 1, 2)]

    assert answers == [{"charge": "charge for Jane"}] * 3
    assert (len(bank.keys), await _users(sessions)) == (1, 1)


class _DeclinedError(JobFailedError):
    """The bank refuses."""

    code = "card_declined"


async def test_a_refusal_by_the_work_is_recorded_like_a_handlers(sessions: Sessions) -> None:
    """Nothing is stored, and the job that is delivered again is refused again, without a call."""
    bank, dispatcher = _Bank(_DeclinedError("no money")), Dispatcher(sessions)

    for attempt in (1, 2):
        with pytest.raises(_DeclinedError, match="no money"):
            await phases.run(dispatcher, bank.spec(), _delivery(attempt))
    async with sessions() as session:
        receipt = await receipt_by_job_id(session, "j1")

    assert receipt is not None
    assert receipt.failure == {"type": "card_declined", "message": "no money"}
    assert (len(bank.keys), bank.stored) == (1, [])


async def test_work_that_fails_is_tried_again_and_at_last_dead(sessions: Sessions) -> None:
    """Each failure of the work is an attempt of the job."""
    bank, dispatcher = _Bank(ConnectionError("1"), ConnectionError("2")), Dispatcher(sessions)

    with pytest.raises(RetryLater):
        await phases.run(dispatcher, bank.spec(max_attempts=2), _delivery(1))
    with pytest.raises(ConnectionError, match="2"):
        await phases.run(dispatcher, bank.spec(max_attempts=2), _delivery(2))

    assert (len(bank.keys), bank.stored) == (2, [])
    assert await letters(sessions) == {"j1": "ConnectionError"}


@pytest.mark.parametrize(
    ("phase", "problem"), [("work", r"took longer than 0\.1 s"), ("store", r"took longer than 0\.2 s")]
)
async def test_each_phase_has_its_own_deadline(phase: str, problem: str, sessions: Sessions) -> None:
    """The work's may be minutes."""

    async def work(_payload: Charge) -> None:
        await asyncio.sleep(5 if phase == "work" else 0)

    async def store(_session: AsyncSession, _payload: Charge, _outcome: None) -> Charged:
        await asyncio.sleep(5 if phase == "store" else 0)
        return Charged(charge="")

    spec = JobSpec(
        Charge, Phases(work=work, store=store, deadline=timedelta(seconds=0.1)), deadline=timedelta(seconds=0.2),
        max_attempts=1,
    )  # fmt: skip

    with pytest.raises(DeadlineExceededError, match=problem):
        await phases.run(Dispatcher(sessions), spec, _delivery())


def _is_so(holds: Callable[[], bool]) -> Callable[[], Awaitable[bool]]:
    async def is_so() -> bool:
        return holds()

    return is_so


async def test_twenty_jobs_work_at_once_on_a_pool_of_two(
    database: DatabaseSettings, sessions: Sessions, build: BuildWorker, client: JobClient
) -> None:
    """None of them holds a connection meanwhile, and a job without phases is done beside them."""
    assert sessions is not None  # the tables are cleaned afterwards
    are_all_there = asyncio.Barrier(21)

    async def work(payload: Charge) -> str:
        await are_all_there.wait()
        return payload.name

    async def store(session: AsyncSession, payload: Charge, charge: str) -> Charged:
        await insert_user(session, payload.name)
        return Charged(charge=charge)

    registry = Registry(JobSpec(Charge, Phases(work=work, store=store)))
    handles = await client.enqueue_many([Charge(name=f"User {number}") for number in range(20)])
    async with open_database(database, pool_size=2) as few:
        worker = await build_recording_worker(build, registry, few, max_jobs=2, max_working=20)
        running = asyncio.create_task(worker.async_run())
        async with asyncio.timeout(20):
            await wait_until_async(_is_so(lambda: are_all_there.n_waiting == 20), 20)
            checked_out = few.kw["bind"].pool.checkedout()
            await are_all_there.wait()
            await running
        charged = [await handle.result(timeout=1) for handle in handles]

    assert checked_out == 0
    assert sorted(one.charge for one in charged) == sorted(f"User {number}" for number in range(20))


async def test_run_job_runs_both_phases(run_job: RunJob) -> None:
    """As a worker does: what the store's failure lets stand is not worked on again."""
    bank = _Bank(ConnectionError("busy"), stores=(KeyError("a bug"),))

    outcome = await run_job.outcome(Charge(), registry=Registry(bank.spec()))

    assert outcome.get().charge == "charge for Jane"
    assert [type(attempt.error) for attempt in outcome.attempts] == [ConnectionError, KeyError, type(None)]
    assert (len(bank.keys), len(set(bank.keys))) == (2, 1)


async def _work(_payload: Charge) -> str:
    return ""


async def _store(_session: AsyncSession, _payload: Charge, _outcome: str) -> Charged:
    return Charged(charge="")


async def _batch(_session: AsyncSession, _payloads: Any) -> list[Charged]:  # noqa: ANN401 - never called
    return []


@pytest.mark.parametrize(
    ("phases", "problem"),
    [
        ({"work": _store}, r"the work of charge, _store, must take \(payload\) or \("),
        ({"store": _work}, r"the store of charge, _work, must take \(session, payload, out"),
        ({"work": lambda _payload: ""}, "the work of charge, .* is no coroutine function"),
        ({"deadline": timedelta(days=1)}, "a timedelta of at most 12 hours"),
    ],
)
def test_phases_that_cannot_work_are_refused_at_once(phases: dict[str, Any], problem: str) -> None:
    """When they are registered."""
    handler: Any = Phases(**{"work": _work, "store": _store} | phases)
    with pytest.raises(TypeError, match=problem):
        JobSpec(Charge, handler)


def test_phases_run_alone() -> None:
    """A batch would have to wait for the slowest work."""
    handler: Any = Phases(work=_work, store=_store)
    with pytest.raises(TypeError, match="the job charge has phases, so that it runs alone: remove batch"):
        JobSpec(Charge, handler, batch=_batch)
