"""What a key means, by the table of docs/producing.md: each of its cells, with real workers and results that expire."""

import asyncio
from datetime import timedelta
from typing import Any, ClassVar

import pytest
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce import JobClient, JobHandle, SyncJobClient
from arqonce.failures import RequestConflictError
from arqonce.payloads import AnyPayload, Payload
from jobs import CreateUser, FindUser, GetOrCreateUser
from jobs.payloads import UserView
from tests.conftest import StartWorker, wait_until_async

Sessions = async_sessionmaker[AsyncSession]

SAME = CreateUser(name="Jane", email="jane@example.org")
ANOTHER = CreateUser(name="Joe", email="joe@example.org")
ANOTHER_KIND = FindUser(name="Jane")
LONG = timedelta(seconds=30)


class NoSuchJob(Payload[UserView]):
    """What no worker can do: it ends as a dead letter."""

    job_name: ClassVar[str] = "no_such_job"


async def _answer(handle: JobHandle[Any]) -> str:
    """Return what became of the request, and the name of the user or of the failure."""
    outcome = (await asyncio.gather(handle.result(timeout=LONG), return_exceptions=True))[0]
    answer = outcome.name if isinstance(outcome, UserView) else type(outcome).__name__
    return f"{'new' if handle.is_new else 'duplicate'}: {answer}"


async def _ask(client: JobClient, *payloads: AnyPayload) -> list[str]:
    handles = [await client.enqueue(payload, key="k") for payload in payloads]
    return [await _answer(handle) for handle in handles]


async def _users(sessions: Sessions) -> list[str]:
    async with sessions() as session:
        return list(await session.scalars(text("SELECT name FROM users ORDER BY id")))


async def _wait_for_the_result_to_expire(redis: Redis) -> None:
    async def is_gone() -> bool:
        return not await redis.exists("arq:result:k")

    await wait_until_async(is_gone, 20)


async def test_while_it_is_queued_the_first_request_counts(
    client: JobClient, start_worker: StartWorker, sessions: Sessions
) -> None:
    """Same or another: a duplicate. Only the same has the first one's result; another is told that it was dropped."""
    await client.enqueue(SAME, key="k")
    handles = [await client.enqueue(payload, key="k") for payload in (SAME, ANOTHER, ANOTHER_KIND)]
    start_worker()

    answers = [await _answer(handle) for handle in handles]

    assert answers == ["duplicate: Jane", *["duplicate: RequestConflictError"] * 2]
    assert await _users(sessions) == ["Jane"]


async def test_while_it_runs_the_first_request_counts(
    client: JobClient, start_worker: StartWorker, sessions: Sessions
) -> None:
    """As while it is queued."""
    start_worker()
    async with sessions() as blocker:
        await blocker.execute(text("LOCK TABLE users IN ACCESS EXCLUSIVE MODE"))
        handle = await client.enqueue(SAME, key="k")

        async def is_running() -> bool:
            return (await handle.status()).value == "running"

        await wait_until_async(is_running, 20)
        handles = [await client.enqueue(payload, key="k") for payload in (SAME, ANOTHER)]
        await blocker.rollback()

    assert [await _answer(one) for one in handles] == ["duplicate: Jane", "duplicate: RequestConflictError"]
    assert await _users(sessions) == ["Jane"]


async def test_after_success_the_kept_answer_counts(
    client: JobClient, start_worker: StartWorker, sessions: Sessions
) -> None:
    """As long as the result is kept."""
    start_worker()
    first = await _ask(client, SAME)

    answers = await _ask(client, SAME, ANOTHER)

    assert (first, answers) == (["new: Jane"], ["duplicate: Jane", "duplicate: RequestConflictError"])
    assert await _users(sessions) == ["Jane"]


async def test_kinds_of_the_same_fields_are_other_requests(
    client: JobClient, start_worker: StartWorker, sessions: Sessions
) -> None:
    """Their results may have one type, or both be failures."""
    start_worker()
    await (await client.enqueue(SAME)).result(timeout=LONG)
    both = {"name": "Jane", "email": "jane@example.org"}
    first = await _ask(client, CreateUser(**both))

    answers = await _ask(client, CreateUser(**both), GetOrCreateUser(**both))

    assert (first, answers[0]) == (["new: EmailTakenError"], "duplicate: EmailTakenError")
    assert answers[1] == "duplicate: RequestConflictError"
    assert await _users(sessions) == ["Jane"]


async def test_an_aborted_job_answers_its_own_request_alone(
    client: JobClient, start_worker: StartWorker, sessions: Sessions
) -> None:
    """Another one was dropped, and not aborted."""
    start_worker()
    handle = await client.enqueue(SAME, key="k", delay=timedelta(hours=1))
    assert await handle.abort(timeout=LONG)

    answers = await _ask(client, SAME, ANOTHER)

    assert answers == ["duplicate: JobAbortedError", "duplicate: RequestConflictError"]
    assert await _users(sessions) == []


async def test_an_answer_is_told_to_its_own_request_alone(
    client: JobClient, start_worker: StartWorker, sessions: Sessions, valkey_url: str
) -> None:
    """Of jobs in a batch, of look-ups, which leave no receipt, and by the blocking client, too."""
    kinds: list[tuple[AnyPayload, AnyPayload]] = [(SAME, ANOTHER), (FindUser(name="Jane"), FindUser(name="Joe"))]
    handles = [await client.enqueue(first, key=f"k{number}") for number, (first, _) in enumerate(kinds)]
    handles += await client.enqueue_many([CreateUser(name=f"User {number}") for number in range(20)])
    start_worker()
    await asyncio.gather(*(handle.result(timeout=LONG) for handle in handles))

    with SyncJobClient(valkey_url) as blocking:
        for number, (same, another) in enumerate(kinds):
            twin = await client.enqueue(same, key=f"k{number}")
            await twin.result(timeout=LONG)
            assert not twin.is_new
            assert await _answer(await client.enqueue(another, key=f"k{number}")) == "duplicate: RequestConflictError"
            await asyncio.to_thread(_expect_conflict, blocking, another, f"k{number}")
    assert len(await _users(sessions)) == 21


def _expect_conflict(client: SyncJobClient, payload: AnyPayload, key: str) -> None:
    with pytest.raises(RequestConflictError, match="give each request its own key"):
        client.enqueue(payload, key=key).result(timeout=LONG)


async def test_after_failure_the_kept_failure_counts(
    client: JobClient, start_worker: StartWorker, sessions: Sessions
) -> None:
    """To try again takes another key, or time. Another request is told that it was dropped."""
    start_worker()
    await (await client.enqueue(SAME)).result(timeout=LONG)
    first = await _ask(client, SAME)

    answers = await _ask(client, SAME, ANOTHER)

    assert (first, answers) == (
        ["new: EmailTakenError"],
        ["duplicate: EmailTakenError", "duplicate: RequestConflictError"],
    )
    assert await _users(sessions) == ["Jane"]


async def test_when_the_result_has_expired_the_receipt_answers(
    client: JobClient, start_worker: StartWorker, sessions: Sessions, redis: Redis
) -> None:
    """The same request is new to Redis, and is answered without running again; another is refused."""
    start_worker(WORKER_KEEP_RESULT="1s")
    await _ask(client, SAME)
    await _wait_for_the_result_to_expire(redis)
    same = await _ask(client, SAME)
    await _wait_for_the_result_to_expire(redis)

    another = await _ask(client, ANOTHER)

    assert (same, another) == (["new: Jane"], ["new: RequestConflictError"])
    assert await _users(sessions) == ["Jane"]


async def test_when_the_failure_has_expired_the_receipt_answers(
    client: JobClient, start_worker: StartWorker, sessions: Sessions, redis: Redis
) -> None:
    """A refusal is an answer: it is remembered as a success is."""
    start_worker(WORKER_KEEP_RESULT="1s")
    await (await client.enqueue(SAME)).result(timeout=LONG)
    await _ask(client, SAME)
    await _wait_for_the_result_to_expire(redis)
    async with sessions.begin() as session:
        await session.execute(text("DELETE FROM users"))  # it would succeed now
    same = await _ask(client, SAME)
    await _wait_for_the_result_to_expire(redis)

    another = await _ask(client, ANOTHER)

    assert (same, another) == (["new: EmailTakenError"], ["new: RequestConflictError"])
    assert await _users(sessions) == []


async def test_when_the_failure_of_a_dead_job_has_expired_the_key_is_free(
    client: JobClient, start_worker: StartWorker, sessions: Sessions, redis: Redis
) -> None:
    """A dead letter took no effect: the same request is tried again, and so is another."""
    start_worker(WORKER_KEEP_RESULT="1s")
    first = await _ask(client, NoSuchJob())
    kept = await _ask(client, NoSuchJob(), SAME)
    await _wait_for_the_result_to_expire(redis)
    same = await _ask(client, NoSuchJob())
    await _wait_for_the_result_to_expire(redis)

    another = await _ask(client, SAME)

    assert (first, kept, same) == (["new: UnknownJobError"], ["duplicate: UnknownJobError"] * 2, first)
    assert another == ["new: Jane"]
    assert await _users(sessions) == ["Jane"]


async def test_when_the_receipt_has_expired_the_key_is_free(
    client: JobClient, start_worker: StartWorker, sessions: Sessions, redis: Redis
) -> None:
    """The job takes effect again: receipts are kept longer than any producer repeats itself."""
    start_worker()
    no_mail = CreateUser(name="Jane")

    async def forget() -> None:
        await redis.delete("arq:result:k")
        async with sessions.begin() as session:
            await session.execute(text("DELETE FROM arqonce.receipts"))  # as after WORKER_KEEP_RECEIPTS

    answers = []
    for payload in (no_mail, no_mail, ANOTHER):
        answers += await _ask(client, payload)
        await forget()

    assert answers == ["new: Jane", "new: Jane", "new: Joe"]
    assert await _users(sessions) == ["Jane", "Jane", "Joe"]
