"""Exactly one effect and one answer for each job, however often and by however many workers it is delivered."""

import asyncio
import random
from collections.abc import Awaitable, Iterable
from typing import Any, TypeVar

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.execution.attempt import Dispatcher
from arqonce.execution.delivery import Delivery
from arqonce.execution.verdict import RetryLater
from arqonce.failures import JobFailedError, RequestConflictError
from arqonce.ledger.receipts import Receipt
from arqonce.spec import JobSpec
from db.tables import User
from jobs.payloads import CreateUser, EmailTakenError, UserView
from jobs.registry import REGISTRY
from jobs.users import create_user
from tests.lost_reply import losing_the_reply

Sessions = async_sessionmaker[AsyncSession]
T = TypeVar("T")
JANE = {"name": "Jane", "email": "jane@example.org"}


def _delivery(job_id: str, attempt: int = 1, **fields: object) -> Delivery:
    return Delivery(job_id, attempt, (), fields or JANE)


async def _counts(sessions: Sessions) -> tuple[int, int]:
    async with sessions() as session:
        row = (
            await session.execute(text("SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM arqonce.receipts)"))
        ).one()
    return row[0], row[1]


@pytest.mark.parametrize("attempt", [1, 2, 6])
async def test_a_redelivered_job_answers_from_its_receipt(sessions: Sessions, attempt: int) -> None:
    """Also if Redis forgot that it was tried, and if its attempts are used up: it has taken effect."""
    first = await Dispatcher(sessions).run(REGISTRY["create_user"], _delivery("j1"))

    again = await Dispatcher(sessions).run(REGISTRY["create_user"], _delivery("j1", attempt))

    assert again == first
    assert await _counts(sessions) == (1, 1)


async def test_a_redelivery_without_any_other_conflict_is_rolled_back(sessions: Sessions) -> None:
    """Nothing but the receipt stops the second row of a user without e-mail."""
    deliveries = [_delivery("j1", name="Nobody") for _ in range(3)]

    answers = [await Dispatcher(sessions).run(REGISTRY["create_user"], delivery) for delivery in deliveries]

    assert answers[0] == answers[1] == answers[2]
    assert await _counts(sessions) == (1, 1)


@pytest.mark.parametrize("name", ["create_user", "get_or_create_user"])
async def test_owners_at_once_take_effect_once(sessions: Sessions, name: str) -> None:
    """Twenty zombies of each of twenty jobs, all at the same time: one effect and one answer for each job."""
    deliveries = [
        _delivery(f"j{job}", name=f"User {job}", email=f"user{job}@example.org") for job in range(20) for _ in range(20)
    ]

    answers = await _at_once(_run_to_the_end(sessions, name, delivery) for delivery in deliveries)

    by_job: dict[str, list[dict[str, Any]]] = {}
    for delivery, answer in zip(deliveries, answers, strict=True):
        by_job.setdefault(delivery.job_id, []).append(answer)
    assert all(answer == answers[0] for answers in by_job.values() for answer in answers)
    assert await _counts(sessions) == (20, 20)


async def _at_once(runs: Iterable[Awaitable[T]]) -> list[T]:
    """Wait for all, as many at once as there are connections: a worker never has more jobs than that."""
    slots = asyncio.Semaphore(25)

    async def wait(run: Awaitable[T]) -> T:
        async with slots:
            return await run

    return list(await asyncio.gather(*map(wait, runs)))


async def _run_to_the_end(sessions: Sessions, name: str, delivery: Delivery) -> dict[str, Any]:
    for attempt in range(1, 10):
        try:
            return await Dispatcher(sessions).run(
                REGISTRY[name], Delivery(delivery.job_id, min(attempt, 4), (), delivery.kwargs)
            )
        except RetryLater:
            continue
    pytest.fail("retried for ever")


async def test_the_same_id_with_another_request_is_refused(sessions: Sessions) -> None:
    """A key that was used for two requests gets no answer that belongs to the other."""
    await Dispatcher(sessions).run(REGISTRY["create_user"], _delivery("j1"))

    for other in (_delivery("j1", name="Janet"), _delivery("j1", 2, name="Janet")):
        with pytest.raises(RequestConflictError):
            await Dispatcher(sessions).run(REGISTRY["create_user"], other)
    with pytest.raises(RequestConflictError):
        await Dispatcher(sessions).run(REGISTRY["get_or_create_user"], _delivery("j1", 2))

    assert await _counts(sessions) == (1, 1)


async def test_a_request_given_in_another_way_is_the_same(sessions: Sessions) -> None:
    """By position, by name, with a default written out, in another case: what counts is what it asks for."""
    first = await Dispatcher(sessions).run(
        REGISTRY["create_user"], _delivery("j1", name="Jane", email="jane@example.org")
    )

    again = await Dispatcher(sessions).run(
        REGISTRY["create_user"], Delivery("j1", 2, ("Jane ",), {"email": "JANE@example.org"})
    )

    assert again == first


async def test_a_look_up_writes_no_receipt(sessions: Sessions) -> None:
    """It is declared to read only, and can be run again at any time."""
    await Dispatcher(sessions).run(REGISTRY["create_user"], _delivery("j1"))

    await Dispatcher(sessions).run(REGISTRY["find_user"], _delivery("j2", name="Jane"))

    assert await _counts(sessions) == (1, 1)


async def test_a_job_that_has_written_nothing_has_a_receipt(sessions: Sessions) -> None:
    """PostgreSQL does not count every effect, so none is looked for."""
    await Dispatcher(sessions).run(REGISTRY["create_user"], _delivery("j1"))

    await Dispatcher(sessions).run(REGISTRY["get_or_create_user"], _delivery("j3"))

    assert await _counts(sessions) == (1, 2)


async def test_a_refusal_is_recorded_and_answered_again(sessions: Sessions) -> None:
    """The e-mail is free again later, and the same job is still refused, in the same words."""
    await Dispatcher(sessions).run(REGISTRY["create_user"], _delivery("j1"))
    with pytest.raises(EmailTakenError) as first:
        await Dispatcher(sessions).run(REGISTRY["create_user"], _delivery("j2"))
    async with sessions.begin() as session:
        await session.execute(text("DELETE FROM users"))

    for attempt in (1, 2, 6):
        with pytest.raises(EmailTakenError) as again:
            await Dispatcher(sessions).run(REGISTRY["create_user"], _delivery("j2", attempt))
        assert again.value.message == first.value.message

    assert await _counts(sessions) == (0, 2)


async def test_a_handlers_own_refusal_keeps_its_type(sessions: Sessions) -> None:
    """Recorded once, whatever the handler would say later."""
    said = iter(["not_today", "never"])

    async def refuse(_session: AsyncSession, _payload: CreateUser) -> UserView:
        raise JobFailedError("no", code=next(said))

    spec = JobSpec(CreateUser, refuse)
    for attempt in (1, 1, 2):
        with pytest.raises(JobFailedError) as caught:
            await Dispatcher(sessions).run(spec, _delivery("j1", attempt))
        assert caught.value.code == "not_today"

    assert await _counts(sessions) == (0, 1)


async def test_owners_at_once_that_differ_give_one_answer(sessions: Sessions) -> None:
    """Some refuse and some succeed: whoever commits first has answered for all."""

    async def toss(session: AsyncSession, payload: CreateUser) -> UserView:
        await asyncio.sleep(random.random() / 100)
        if random.random() < 0.5:
            raise JobFailedError("no", code="not_today")
        return await create_user(session, payload)

    spec, jobs = JobSpec(CreateUser, toss), range(20)

    async def answer(job: int) -> str:
        try:
            return str(await Dispatcher(sessions).run(spec, _delivery(f"j{job}", name=f"n{job}")))
        except JobFailedError as error:
            return str(error)

    answers = await _at_once(answer(job) for job in jobs for _ in range(10))

    assert [len(set(answers[job * 10 : job * 10 + 10])) for job in jobs] == [1] * len(jobs)
    users, receipts = await _counts(sessions)
    assert (users, receipts) == (sum("not_today" not in answer for answer in answers[::10]), len(jobs))


async def test_a_lost_reply_to_the_commit_is_found_out(sessions: Sessions) -> None:
    """The attempt fails, but has taken effect: the next one answers from its receipt."""
    dispatcher = Dispatcher(losing_the_reply(sessions))
    with pytest.raises(RetryLater):
        await dispatcher.run(REGISTRY["create_user"], _delivery("j1", name="Nobody"))

    answer = await dispatcher.run(REGISTRY["create_user"], _delivery("j1", 2, name="Nobody"))

    assert answer["name"] == "Nobody"
    assert await _counts(sessions) == (1, 1)


async def test_pending_objects_of_the_handler_are_part_of_the_effect(sessions: Sessions) -> None:
    """A handler need not flush: what it has added is written before the receipt, which must not miss it."""

    async def add_without_flush(session: AsyncSession, payload: CreateUser) -> UserView:
        view = await create_user(session, payload)
        user = await session.get_one(User, view.id)
        user.name = "Later"
        return view

    spec = JobSpec(CreateUser, add_without_flush)
    await Dispatcher(sessions).run(spec, _delivery("j1"))
    await Dispatcher(sessions).run(spec, _delivery("j1", 2))

    async with sessions() as session:
        names = list(await session.scalars(text("SELECT name FROM users")))
    assert names == ["Later"]
    assert await _counts(sessions) == (1, 1)


async def test_of_a_refusal_and_an_effect_at_once_the_first_is_the_answer(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A zombie is about to record that the e-mail is taken, when the other owner's effect commits: that one counts."""
    done = await Dispatcher(sessions).run(REGISTRY["create_user"], _delivery("j1"))
    zombie = Dispatcher(sessions)
    look, looks = zombie.record._earlier, 0

    async def look_too_early(delivery: Delivery) -> Receipt | None:
        nonlocal looks
        looks += 1
        return None if looks == 1 else await look(delivery)

    monkeypatch.setattr(zombie.record, "_earlier", look_too_early)

    assert await zombie.run(REGISTRY["create_user"], _delivery("j1")) == done
    assert (looks, await _counts(sessions)) == (2, (1, 1))
