"""How promised jobs end: answered, refused or dead, and never owed for ever, also if one id was used twice."""

import asyncio
import json
from collections.abc import Sequence
from datetime import timedelta

import pytest
from redis.asyncio import Redis
from sqlalchemy import text

from arqonce import JobClient
from arqonce.execution.attempt import Dispatcher
from arqonce.execution.dead_letters import bury, write_letter
from arqonce.execution.delivery import Delivery
from arqonce.failures import AttemptsExhaustedError, MalformedMessageError, RequestConflictError
from arqonce.ledger.dead_jobs import DeadFilter, dead_jobs
from arqonce.ledger.tables import DeadJob
from arqonce.outbox import enqueue_in
from arqonce.payloads import AnyPayload
from arqonce.wire.keys import conflict_id
from arqonce.wire.request import request_hash
from jobs import CreateUser, FindUser
from jobs.payloads import EmailTakenError
from jobs.registry import REGISTRY
from tests.conftest import StartWorker
from tests.promised import JANE, Sessions, count_promises, execute, promise, where


async def test_a_promise_is_answered_like_any_job(
    start_worker: StartWorker, client: JobClient, sessions: Sessions, redis: Redis
) -> None:
    """Through a real worker: a result, a look-up that gets a receipt, a refusal, and none is owed any more."""
    start_worker()
    async with sessions.begin() as session:
        jane = await enqueue_in(session, JANE, key="jane")
    answer = await client.handle(jane).result(timeout=timedelta(seconds=20))
    async with sessions.begin() as session:
        found = await enqueue_in(session, FindUser(email="jane@example.org"), key="find")
        taken = await enqueue_in(session, JANE, key="taken")
    matches = await client.handle(found).result(timeout=timedelta(seconds=20))
    with pytest.raises(EmailTakenError):
        await client.handle(taken).result(timeout=timedelta(seconds=20))
    await redis.flushall()
    again = await (await client.enqueue(JANE, key="jane")).result(timeout=timedelta(seconds=20))

    assert (answer, matches.first) == (again, answer)
    assert set(map(tuple, (await where(sessions, "jane", "find", "taken")).values())) == {("receipts",)}


async def _run(sessions: Sessions, key: str, payload: AnyPayload, attempt: int = 1) -> dict[str, object]:
    fields = payload.model_dump(mode="json", exclude_unset=True)
    return await Dispatcher(sessions).run(REGISTRY[payload.job_name], Delivery(key, attempt, (), fields))


async def test_another_request_with_the_id_is_recorded_as_dead(sessions: Sessions) -> None:
    """X was sent directly and took effect; Y was promised under the same id: X's run leaves Y's row, Y's ends it."""
    other = CreateUser(name="Janet")
    await promise(sessions, other, "k")
    await _run(sessions, "k", JANE)
    between = await where(sessions, "k")
    await _run(sessions, "k", JANE)  # delivered twice: that settles nothing of the other request either

    for attempt in (1, 2):
        with pytest.raises(RequestConflictError):
            await _run(sessions, "k", other, attempt)

    conflict = conflict_id("k", request_hash(other))
    async with sessions() as session:
        owed = await count_promises(session, "arq:queue")
        (letter,) = await dead_jobs(session, DeadFilter(), limit=9)
    assert between == {"k": ["outbox", "receipts"]}
    assert (owed, letter.job_id, letter.reason) == (0, conflict, "request_conflict")
    assert json.loads(letter.message)["k"] == {"name": "Janet"}
    assert await where(sessions, "k", conflict) == {"k": ["receipts"], conflict: ["dead"]}


async def test_the_longest_id_has_a_conflict_id_too() -> None:
    """At most 200 characters; other requests and other ids give others."""
    ids = {conflict_id(key, request) for key in ("k" * 200, "k" * 199) for request in (b"x", b"y")}

    assert len(ids) == 4
    assert max(map(len, ids)) <= 200


@pytest.mark.parametrize("payload", [JANE, FindUser(name="Jane")])
async def test_a_row_of_another_version_of_the_code_goes(sessions: Sessions, payload: AnyPayload) -> None:
    """Its hash is another because defaults were: the job ends, and its next delivery finds out that it is the same."""
    await promise(sessions, payload, "k")
    await execute(sessions, "UPDATE arqonce.outbox SET request_hash = 'old'")
    first = await _run(sessions, "k", payload)
    between = await where(sessions, "k")

    again = await _run(sessions, "k", payload)

    assert again == first
    assert (between, await where(sessions, "k")) == ({"k": ["outbox", "receipts"]}, {"k": ["receipts"]})


async def test_an_answer_of_another_version_of_the_code_is_given(sessions: Sessions) -> None:
    """The receipt and the row were written by it: today's code knows the request by its message."""
    await promise(sessions, JANE, "k")
    first = await _run(sessions, "k", JANE)
    await promise(sessions, JANE, "copy")
    await execute(sessions, "UPDATE arqonce.outbox SET job_id = 'k', request_hash = 'old'")
    await execute(sessions, "UPDATE arqonce.receipts SET request_hash = 'old'")

    again = await _run(sessions, "k", JANE)

    assert again == first
    assert await where(sessions, "k") == {"k": ["receipts"]}


async def test_twins_of_a_promised_look_up_give_one_answer(sessions: Sessions) -> None:
    """Of two at once only one may write the receipt; the other answers from it."""
    await promise(sessions, FindUser(name="Jane"), "find")

    answers = await asyncio.gather(*(_run(sessions, "find", FindUser(name="Jane")) for _ in range(10)))

    assert answers == [{"users": []}] * 10
    assert await where(sessions, "find") == {"find": ["receipts"]}


def _letter(job_id: str, message: bytes) -> object:
    failure = RequestConflictError("x", code="malformed_message")
    return write_letter(failure, failure, job_id=job_id, job_name=None, message=message, attempts=1, queue="q")


async def test_a_dead_job_is_owed_no_more_unless_it_was_another(sessions: Sessions) -> None:
    """Of four deaths: its own message, a wrong field of its own, somebody else's message, and one that was missing."""
    for key in ("same", "foreign", "missing"):
        await promise(sessions, JANE, key)
    await promise(sessions, JANE, "wrong")
    wrong: dict[str, object] = {"t": None, "f": "create_user", "a": [], "k": {"nme": "Jane"}, "et": 1}
    async with sessions.begin() as session:
        await session.execute(
            text("UPDATE arqonce.outbox SET message = :message WHERE job_id = 'wrong'"),
            {"message": json.dumps(wrong).encode()},
        )
        message = b"\xff unreadable"
        await session.execute(
            text("UPDATE arqonce.outbox SET message = :message WHERE job_id = 'same'"), {"message": message}
        )

    await bury(sessions, _letter("same", message))  # type: ignore[arg-type] # a letter
    await bury(sessions, _letter("foreign", b"garbage"))  # type: ignore[arg-type] # a letter
    await bury(sessions, _letter("missing", b""))  # type: ignore[arg-type] # a letter
    with pytest.raises(Exception, match="nme"):
        await Dispatcher(sessions).run(REGISTRY["create_user"], Delivery("wrong", 1, (), {"nme": "Jane"}))

    async with sessions() as session:
        letters = {letter.job_id for letter in await dead_jobs(session, DeadFilter(), limit=9)}
    assert await where(sessions, "same", "foreign", "missing", "wrong") == {
        "same": ["dead"], "foreign": ["outbox"], "missing": ["outbox"], "wrong": ["dead"]
    }  # fmt: skip
    assert {letter.partition("~")[0] for letter in letters} == {"same", "foreign", "wrong"}
    assert len(letters) == 3


@pytest.mark.parametrize("payload", [CreateUser(name="Jane"), FindUser(name="Jane")])
async def test_a_promised_job_that_died_can_be_retried(sessions: Sessions, payload: AnyPayload) -> None:
    """Once, and then it has a receipt: also a look-up, which must not vanish."""
    await promise(sessions, payload, "k")
    async with sessions() as session:
        message: bytes = await session.scalar(text("SELECT message FROM arqonce.outbox")) or b""
    await bury(sessions, _letter("k", message))  # type: ignore[arg-type] # a letter
    before = await where(sessions, "k")

    first = await _run(sessions, "k", payload)
    again = await _run(sessions, "k", payload)

    assert first == again
    assert (before, await where(sessions, "k")) == ({"k": ["dead"]}, {"k": ["receipts"]})


async def test_a_dead_letter_outlives_whatever_comes_under_its_id(sessions: Sessions) -> None:
    """A lost message does not empty it, garbage gets a letter of its own, and another request does not revive it."""
    await promise(sessions, JANE, "jane")
    with pytest.raises(AttemptsExhaustedError):
        await _run(sessions, "jane", JANE, attempt=9)
    (before,) = await _letters(sessions)

    for message in (b"", b"garbage"):
        failure = MalformedMessageError("no")
        letter = write_letter(failure, failure, job_id="jane", job_name=None, message=message, attempts=1, queue="q")
        await bury(sessions, letter)
    await _run(sessions, "jane", CreateUser(name="Janet"))

    after = {letter.job_id: letter for letter in await _letters(sessions)}
    (conflict,) = after.keys() - {"jane"}
    assert (after["jane"].message, after["jane"].reason) == (before.message, "attempts_exhausted")
    assert after[conflict].message == b"garbage"

    await execute(sessions, "DELETE FROM arqonce.receipts")
    await _run(sessions, "jane", JANE)

    assert [letter.job_id for letter in await _letters(sessions)] == [conflict]


async def _letters(sessions: Sessions) -> Sequence[DeadJob]:
    async with sessions() as session:
        return await dead_jobs(session, DeadFilter(), limit=10)
