"""Batches on the real database: one transaction, and for each job the answer that it would have had by itself."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from structlog.testing import capture_logs

from arqonce.execution import batch as batches
from arqonce.execution.answers import Answer
from arqonce.execution.attempt import Dispatcher
from arqonce.execution.delivery import EXPIRED, Delivery
from arqonce.execution.verdict import RetryLater
from arqonce.failures import ConstraintViolatedError, InvalidPayloadError, JobFailedError
from arqonce.spec import JobSpec
from arqonce.work import Again
from db.users import insert_new_users
from jobs.payloads import CreateUser, UserView
from jobs.registry import REGISTRY
from jobs.users import create_user, create_user_batch
from tests.lost_reply import losing_the_reply
from tests.promised import execute, promise, where

pytestmark = pytest.mark.usefixtures("_quiet")

Sessions = async_sessionmaker[AsyncSession]
CREATE = REGISTRY["create_user"]


@pytest.fixture
def _quiet() -> Iterator[None]:
    """Print no traceback: with the rows of a batch in it one takes a second."""
    with capture_logs():
        yield


def _deliveries(number: int, attempt: int = 1, *, emails: bool = True) -> list[Delivery]:
    return [_delivery(f"j{at}", attempt, **_user(at, emails=emails)) for at in range(number)]


def _user(number: int, *, emails: bool) -> dict[str, str]:
    return {"name": f"User {number}"} | ({"email": f"user{number}@example.org"} if emails else {})


def _delivery(job_id: str, attempt: int = 1, **fields: object) -> Delivery:
    return Delivery(job_id, attempt, (), fields)


async def counts(sessions: Sessions) -> tuple[int, ...]:
    """Count users, receipts, dead letters, and the transactions that have written the users."""
    query = """SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM arqonce.receipts),
        (SELECT count(*) FROM arqonce.dead_jobs), (SELECT count(DISTINCT xmin::text) FROM users)"""
    async with sessions() as session:
        return tuple((await session.execute(text(query))).one())


async def run_batch(dispatcher: Dispatcher, spec: Any, deliveries: Sequence[Delivery]) -> list[Any]:  # noqa: ANN401 - any job
    """Run it, and leave out the tags of the answers."""
    outcomes = await batches.run_batch(dispatcher, spec, deliveries)
    return [outcome.value if isinstance(outcome, Answer) else outcome for outcome in outcomes]


async def _to_the_end(sessions: Sessions, spec: Any, deliveries: Sequence[Delivery]) -> dict[str, Any]:  # noqa: ANN401 - any job
    """Run a batch as a worker does: what has to run again runs alone; attempts that fail are followed by others."""
    dispatcher = Dispatcher(sessions)
    outcomes = await run_batch(dispatcher, spec, deliveries)
    answers: dict[str, Any] = {}
    for delivery, outcome in zip(deliveries, outcomes, strict=True):
        again = isinstance(outcome, Again | RetryLater)
        answers[delivery.job_id] = await _alone(dispatcher, spec, delivery) if again else outcome
    return answers


async def _alone(dispatcher: Dispatcher, spec: Any, delivery: Delivery) -> Any:  # noqa: ANN401 - any job
    for attempt in range(delivery.attempt, delivery.attempt + 8):
        try:
            return await dispatcher.run(spec, Delivery(delivery.job_id, min(attempt, 4), (), delivery.kwargs))
        except RetryLater:
            continue
        except JobFailedError as error:
            return error
    pytest.fail("retried for ever")


def _told(answer: object) -> object:
    """Bring an answer into a form that can be compared."""
    return str(answer) if isinstance(answer, JobFailedError) else answer


async def test_a_batch_is_one_transaction(sessions: Sessions) -> None:
    """A row and a receipt for each job, all or none; the answers come in the order given."""
    deliveries = _deliveries(100)

    answers = await run_batch(Dispatcher(sessions), CREATE, deliveries)

    assert [answer["name"] for answer in answers if isinstance(answer, dict)] == [f"User {at}" for at in range(100)]
    assert await counts(sessions) == (100, 100, 0, 1)


async def test_each_job_of_a_batch_has_its_own_answer(sessions: Sessions) -> None:
    """Stored, taken before, taken by a neighbour, invalid, ended before, worn out."""
    await Dispatcher(sessions).run(CREATE, _delivery("earlier", name="Earlier", email="taken@example.org"))
    deliveries = [
        _delivery("stored", name="Jane", email="jane@example.org"),
        _delivery("taken", name="Joe", email="taken@example.org"),
        _delivery("second", name="Second Jane", email="JANE@example.org"),
        _delivery("nobody", name="Jane"),
        _delivery("invalid", nme="Jane"),
        _delivery("earlier", 2, name="Earlier", email="taken@example.org"),
        _delivery("worn out", 6, name="Jim"),
    ]

    outcomes = await run_batch(Dispatcher(sessions), CREATE, deliveries)

    codes = [one.code if isinstance(one, JobFailedError) else one for one in outcomes]
    assert [one["name"] if isinstance(one, dict) else one for one in codes] == [
        "Jane", "email_taken", "email_taken", "Jane", "invalid_payload", "Earlier", "attempts_exhausted",
    ]  # fmt: skip
    assert await counts(sessions) == (3, 5, 2, 2)


async def test_what_ends_without_a_run_ends_together(sessions: Sessions) -> None:
    """Delivered again, a conflict, expired: thousands of these, one by one, would delay all other jobs for minutes."""
    before = await run_batch(Dispatcher(sessions), CREATE, _deliveries(3))
    deliveries = [
        *_deliveries(3),
        _delivery("j0", 2, name="Another"),
        *[Delivery(f"late{at}", 1, (), {"name": "Late"}, expires_ms=1) for at in range(3)],
        Delivery("j1", 1, (), _user(1, emails=True), expires_ms=1),
    ]
    alone = [deliveries[3]]

    outcomes = await run_batch(Dispatcher(sessions), CREATE, [one for one in deliveries if one not in alone])
    conflicts = await run_batch(Dispatcher(sessions), CREATE, alone)

    assert [_told(one) for one in outcomes] == [
        *[_told(one) for one in before], *[f"expired: {EXPIRED}"] * 3, _told(before[1]),
    ]  # fmt: skip
    assert [one.code for one in conflicts] == ["request_conflict"]
    assert await counts(sessions) == (3, 6, 1, 1)


async def test_jobs_without_an_attempt_end_together_unless_one_is_about_to_commit(sessions: Sessions) -> None:
    """An abandoned attempt may still commit: then no letter says that it never ended."""
    used_up = [Delivery(f"j{at}", 100, (), _user(at, emails=True), was_left=True) for at in range(20)]
    others = [used_up[0]._replace(job_id="failed", was_left=False), *used_up[2:]]
    async with sessions() as zombie:
        receipt = "INSERT INTO arqonce.receipts SELECT 'j1', 'create_user', '', '{}', NULL, 1"
        await zombie.execute(text(receipt))
        blocked = await run_batch(Dispatcher(sessions), CREATE, used_up[:2])
        ended = await run_batch(Dispatcher(sessions), CREATE, others)

    assert blocked == [Again.ALONE] * 2
    assert [one.code for one in ended[1:]] == ["attempts_exhausted"] * 18
    assert await counts(sessions) == (1, 1, 18, 1)


async def test_what_is_left_to_runs_of_their_own_ends_there(sessions: Sessions) -> None:
    """A receipt answers, an invalid payload whose id is known already is dead."""
    first = await Dispatcher(sessions).run(CREATE, _delivery("earlier", name="Earlier"))
    deliveries = [_delivery("new", name="New"), _delivery("bad", nme="x"), _delivery("earlier", 2, name="Earlier")]

    answers = await _to_the_end(sessions, CREATE, deliveries)

    assert (answers["earlier"], answers["bad"].code) == (first, "invalid_payload")
    assert await counts(sessions) == (2, 2, 1, 2)


@pytest.mark.parametrize("attempt", [1, 2])
@pytest.mark.parametrize("emails", [True, False])
async def test_a_redelivered_batch_answers_from_its_receipts(sessions: Sessions, attempt: int, *, emails: bool) -> None:
    """Refusals too, and in part also jobs that are new."""
    twin = Delivery("twin", 1, (), _user(0, emails=emails))
    first = await _to_the_end(sessions, CREATE, [*_deliveries(20, emails=emails), twin])

    twin = Delivery("twin", attempt, (), _user(0, emails=emails))
    again = await _to_the_end(sessions, CREATE, [*_deliveries(30, attempt, emails=emails), twin])

    assert {job_id: _told(again[job_id]) for job_id in first} == {job_id: _told(first[job_id]) for job_id in first}
    assert (await counts(sessions))[:3] == ((30, 31, 0) if emails else (31, 31, 0))


@pytest.mark.parametrize("emails", [True, False])
async def test_zombies_of_one_batch_give_the_same_answers(sessions: Sessions, *, emails: bool) -> None:
    """Several workers run the same jobs at once, cut into other batches in another order: one row and one receipt."""
    for number in range(5):
        twins = [Delivery(f"twin{at}", 1, (), _user(at, emails=emails)) for at in range(6)]
        jobs = [*_deliveries(40, emails=emails), *twins]

        owners = await asyncio.gather(*(_own(sessions, jobs, random.Random(f"{number}-{owner}")) for owner in range(4)))

        answers = [{job_id: _told(answer) for job_id, answer in owner.items()} for owner in owners]
        assert answers[1:] == [answers[0]] * 3
        assert (await counts(sessions))[:3] == ((40, 46, 0) if emails else (46, 46, 0))
        await execute(sessions, "TRUNCATE users, arqonce.receipts RESTART IDENTITY")


async def _own(sessions: Sessions, jobs: Sequence[Delivery], chance: random.Random) -> dict[str, Any]:
    jobs = chance.sample(jobs, len(jobs))
    cut = chance.randrange(1, len(jobs))
    parts = await asyncio.gather(*(_to_the_end(sessions, CREATE, part) for part in (jobs[:cut], jobs[cut:])))
    return parts[0] | parts[1]


async def test_promised_jobs_leave_the_outbox_with_their_effect(sessions: Sessions) -> None:
    """And only they: one that is promised under the same id with another request stays owed."""
    for at in range(5):
        await promise(sessions, CreateUser(name=f"User {at}", email=f"user{at}@example.org"), f"j{at}")
    await promise(sessions, CreateUser(name="Somebody else"), "j5")

    await run_batch(Dispatcher(sessions), CREATE, _deliveries(10))

    assert [(await where(sessions, f"j{at}"))[f"j{at}"] for at in (0, 4, 9)] == [["receipts"]] * 3
    assert "outbox" in (await where(sessions, "j5"))["j5"]


async def test_a_retried_dead_letter_goes_when_its_job_ends_in_a_batch(sessions: Sessions) -> None:
    """Its neighbours' letters stay."""
    dispatcher = Dispatcher(sessions)
    broken = JobSpec(CreateUser, _refuse_as_dead)
    for delivery in _deliveries(3, emails=False):
        await _alone(dispatcher, broken, delivery)
    assert (await counts(sessions))[:3] == (0, 0, 3)

    await run_batch(dispatcher, CREATE, [*_deliveries(2, emails=False), _delivery("new", name="New")])

    assert (await counts(sessions))[:3] == (3, 3, 1)


async def _refuse_as_dead(_session: AsyncSession, _payload: CreateUser) -> UserView:
    raise ConstraintViolatedError("no")


Many = Callable[[AsyncSession, Sequence[CreateUser]], Awaitable[Any]]
One = Callable[[AsyncSession, CreateUser], Awaitable[UserView]]


def spec_of(batch: Many, handler: One = create_user, **limits: Any) -> JobSpec[Any, Any]:  # noqa: ANN401 - handed on
    """Make a job of a handler of many payloads."""
    return JobSpec(CreateUser, handler, batch=batch, **limits)


async def _too_few(session: AsyncSession, payloads: Sequence[CreateUser]) -> Any:  # noqa: ANN401 - wrong
    return (await create_user_batch(session, payloads))[1:]


async def _none(session: AsyncSession, payloads: Sequence[CreateUser]) -> Any:  # noqa: ANN401 - wrong
    await create_user_batch(session, payloads)


async def _wrong_type(session: AsyncSession, payloads: Sequence[CreateUser]) -> Any:  # noqa: ANN401 - wrong
    return [*(await create_user_batch(session, payloads))[1:], "done"]


async def _unknown_error(session: AsyncSession, payloads: Sequence[CreateUser]) -> Any:  # noqa: ANN401 - none
    await create_user_batch(session, payloads)
    raise ZeroDivisionError


async def _own_commit(session: AsyncSession, payloads: Sequence[CreateUser]) -> Any:  # noqa: ANN401 - wrong
    await session.rollback()
    return await create_user_batch(session, payloads)


async def _broken_statement(session: AsyncSession, payloads: Sequence[CreateUser]) -> Any:  # noqa: ANN401 - none
    await create_user_batch(session, payloads)
    await session.execute(text("SELECT nothing FROM nowhere"))


async def _lost_connection(session: AsyncSession, payloads: Sequence[CreateUser]) -> Any:  # noqa: ANN401 - none
    await create_user_batch(session, payloads)
    await session.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))


async def _late(session: AsyncSession, payloads: Sequence[CreateUser]) -> Any:  # noqa: ANN401 - none
    await create_user_batch(session, payloads)
    await session.execute(text("SELECT pg_sleep(30)"))


FAILING = [
    _too_few, _none, _wrong_type, _unknown_error, _own_commit, _broken_statement, _lost_connection, _late,
]  # fmt: skip


@pytest.mark.parametrize("batch", FAILING)
async def test_a_batch_that_fails_leaves_nothing_and_its_jobs_to_smaller_ones(
    sessions: Sessions, batch: Callable[..., Awaitable[Any]]
) -> None:
    """Whatever the handler of many did; the connections are in the pool again."""
    spec = spec_of(batch, deadline=timedelta(milliseconds=500 if batch is _late else 30_000))

    outcomes = await run_batch(Dispatcher(sessions), spec, _deliveries(5))

    assert (outcomes, await counts(sessions)) == ([Again.APART] * 5, (0, 0, 0, 0))
    assert sessions.kw["bind"].pool.checkedout() == 0


async def test_a_payload_that_the_handler_of_many_finds_dead_runs_alone(sessions: Sessions) -> None:
    """All of them too: then there is nothing to record."""

    async def batch(session: AsyncSession, payloads: Sequence[CreateUser]) -> Any:  # noqa: ANN401 - its answers
        good = [(payload.name, payload.email) for payload in payloads if payload.name != "User 1"]
        new = iter((await insert_new_users(session, good)).values()) if good else iter(())
        return [
            ConstraintViolatedError("no") if payload.name == "User 1" else UserView(**next(new)._asdict())
            for payload in payloads
        ]

    deliveries = _deliveries(3)

    some = await run_batch(Dispatcher(sessions), spec_of(batch), deliveries)
    none = await run_batch(Dispatcher(sessions), spec_of(batch), deliveries[1:2])

    assert [isinstance(one, dict) or one for one in some] == [True, Again.ALONE, True]
    assert (none, (await counts(sessions))[:3]) == ([Again.ALONE], (2, 2, 0))


async def test_a_lost_reply_to_the_commit_of_a_batch_is_found_out(sessions: Sessions) -> None:
    """The batch fails, but has taken effect: its jobs answer from their receipts."""
    answers = await _to_the_end(losing_the_reply(sessions), CREATE, _deliveries(20, emails=False))

    assert sorted(answer["name"] for answer in answers.values()) == sorted(f"User {at}" for at in range(20))
    assert await counts(sessions) == (20, 20, 0, 1)


async def test_in_an_outage_the_whole_batch_is_tried_later_uncounted(sessions: Sessions) -> None:
    """No attempt is burnt, and nothing is recorded as failed."""
    dispatcher = Dispatcher(sessions)

    async def is_gone() -> bool:
        return False

    dispatcher.gate.check = is_gone  # type: ignore[method-assign] # as if the server were gone by then

    outcomes = await run_batch(dispatcher, spec_of(_lost_connection), [*_deliveries(3), _delivery("bad", nme="x")])

    assert [isinstance(one, RetryLater) and one.counts for one in outcomes[:3]] == [False] * 3
    assert isinstance(outcomes[3], InvalidPayloadError)  # its letter was written before
    assert await counts(sessions) == (0, 0, 1, 0)


async def test_a_cancelled_batch_leaves_nothing_and_frees_its_connection(sessions: Sessions) -> None:
    """A shutdown in the middle of its statement rolls back."""
    started = asyncio.Event()

    async def wait(session: AsyncSession, payloads: Sequence[CreateUser]) -> Any:  # noqa: ANN401 - none
        await create_user_batch(session, payloads)
        started.set()
        await session.execute(text("SELECT pg_sleep(30)"))

    task = asyncio.create_task(run_batch(Dispatcher(sessions), spec_of(wait), _deliveries(5)))
    await asyncio.wait_for(started.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert ((await counts(sessions))[:2], sessions.kw["bind"].pool.checkedout()) == ((0, 0), 0)


async def test_a_locked_row_holds_up_no_neighbours(sessions: Sessions) -> None:
    """A batch does not wait for somebody's open transaction as long as a single job does."""
    async with sessions() as blocker:
        await blocker.execute(text("INSERT INTO users (name, email) VALUES ('Blocker', 'user7@example.org')"))

        async with asyncio.timeout(3):  # the statement timeout is 8 s
            outcomes = await run_batch(Dispatcher(sessions), CREATE, _deliveries(20))

    assert outcomes == [Again.APART] * 20
