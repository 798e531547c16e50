"""Jobs that failed for good: what is recorded, what is not, and what an operator does with it."""

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import ClassVar

import pytest
from redis.asyncio import Redis
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce import JobClient, Payload
from arqonce.execution.attempt import Dispatcher
from arqonce.execution.delivery import Delivery
from arqonce.execution.verdict import RetryLater
from arqonce.failures import (
    AttemptsExhaustedError,
    ConstraintViolatedError,
    InvalidPayloadError,
    JobFailedError,
    MalformedMessageError,
)
from arqonce.ledger.dead_jobs import DeadFilter, DeadLetter, dead_jobs, insert_dead_letter
from arqonce.outbox import enqueue_in
from arqonce.spec import JobSpec
from jobs import CreateUser
from jobs.payloads import EmailTakenError, UserView
from jobs.registry import REGISTRY
from tests import warm
from tests.conftest import StartWorker

Sessions = async_sessionmaker[AsyncSession]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def _letter(job_id: str) -> DeadLetter:
    return DeadLetter(
        job_id=job_id,
        job_name="create_user",
        message=b'{"t":null,"f":"create_user","a":[],"k":{"name":"Jane"},"et":1}',
        reason="database_failed",
        explanation="",
        error="",
        sqlstate=None,
        attempts=5,
        queue="arq:queue",
    )


async def _letters(sessions: Sessions) -> list[tuple[str, str | None, str, int]]:
    async with sessions() as session:
        found = await dead_jobs(session, DeadFilter(), limit=100)
    return [(letter.job_id, letter.job_name, letter.reason, letter.attempts) for letter in found]


async def test_a_job_that_cannot_be_read_is_dead(sessions: Sessions) -> None:
    """With what it was asked, so that it can be mended."""
    with pytest.raises(InvalidPayloadError):
        await Dispatcher(sessions).run(REGISTRY["create_user"], Delivery("j1", 1, (), {"nme": "Jane"}))

    async with sessions() as session:
        (letter,) = await dead_jobs(session, DeadFilter(), limit=2)
    assert (letter.reason, letter.attempts) == ("invalid_payload", 1)
    assert json.loads(letter.message)["k"] == {"nme": "Jane"}
    assert "Its fields are: name, email" in letter.explanation


async def test_the_letter_of_a_job_that_no_table_knows_is_one_statement(sessions: Sessions) -> None:
    """Such jobs come by thousands, from a producer with a fault: each took six."""
    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    engine = sessions.kw["bind"].sync_engine
    event.listen(engine, "before_cursor_execute", note)
    with pytest.raises(InvalidPayloadError):
        await Dispatcher(sessions).run(REGISTRY["create_user"], Delivery("j1", 1, (), {"nme": "Jane"}))
    event.remove(engine, "before_cursor_execute", note)

    assert len(statements) <= 1  # SQLAlchemy sees none of what goes to the driver itself
    assert await _letters(sessions) == [("j1", "create_user", "invalid_payload", 1)]


async def test_an_answer_is_no_dead_letter(sessions: Sessions) -> None:
    """What the registry or a handler has chosen to say goes to the producer and bothers nobody else."""
    jane = {"name": "Jane", "email": "jane@example.org"}
    await Dispatcher(sessions).run(REGISTRY["create_user"], Delivery("j1", 1, (), jane))

    async def refuse(_session: AsyncSession, _payload: CreateUser) -> UserView:
        raise JobFailedError("no", code="not_today")

    with pytest.raises(EmailTakenError):
        await Dispatcher(sessions).run(REGISTRY["create_user"], Delivery("j2", 1, (), jane))
    with pytest.raises(JobFailedError):
        await Dispatcher(sessions).run(JobSpec(CreateUser, refuse), Delivery("j3", 1, (), jane))

    assert await _letters(sessions) == []


async def test_an_unknown_error_is_dead_after_its_last_attempt(sessions: Sessions) -> None:
    """With its causes and the places in the code, and not before."""

    async def fail(_session: AsyncSession, _payload: CreateUser) -> UserView:
        raise ValueError("secret") from KeyError("secret")

    spec = JobSpec(CreateUser, fail, max_attempts=2)
    with pytest.raises(RetryLater):
        await Dispatcher(sessions).run(spec, Delivery("j1", 1, ("Jane",), {}))
    before = await _letters(sessions)
    with pytest.raises(ValueError, match="secret"):
        await Dispatcher(sessions).run(spec, Delivery("j1", 2, ("Jane",), {}))

    async with sessions() as session:
        (letter,) = await dead_jobs(session, DeadFilter(), limit=2)
    assert before == []
    assert (letter.reason, letter.attempts) == ("ValueError", 2)
    assert "<- KeyError" in letter.error
    assert "secret" not in letter.error


async def test_a_job_that_kills_its_workers_is_dead(sessions: Sessions) -> None:
    """It is not started again, and the reason says so."""
    with pytest.raises(AttemptsExhaustedError):
        await Dispatcher(sessions).run(REGISTRY["create_user"], Delivery("j1", 6, ("Jane",), {}))

    assert await _letters(sessions) == [("j1", "create_user", "attempts_exhausted", 6)]


async def test_a_violated_constraint_is_told_with_its_sqlstate(sessions: Sessions) -> None:
    """One that the registry does not know."""

    async def break_rule(session: AsyncSession, _payload: CreateUser) -> UserView:
        await session.execute(text("INSERT INTO users (name) VALUES (' x')"))
        pytest.fail("the constraint must hold")

    with pytest.raises(ConstraintViolatedError):
        await Dispatcher(sessions).run(JobSpec(CreateUser, break_rule), Delivery("j1", 1, ("Jane",), {}))

    async with sessions() as session:
        (letter,) = await dead_jobs(session, DeadFilter(), limit=2)
    assert (letter.reason, letter.sqlstate) == ("constraint_violated", "23514")


async def test_a_dead_letter_that_cannot_be_written_delivers_the_job_again(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job is never lost between its failure and the record of it."""

    async def fail(*_: object, **_named: object) -> None:
        raise ConnectionResetError

    monkeypatch.setattr("arqonce.execution.letters.bury", fail)
    monkeypatch.setattr("arqonce.execution.letters.bury_together", fail)

    with pytest.raises(RetryLater):
        await Dispatcher(sessions).run(REGISTRY["create_user"], Delivery("j1", 1, (), {}))


async def test_a_job_that_took_effect_is_not_dead(sessions: Sessions) -> None:
    """A late failure of another owner is recorded by nobody; an earlier letter is not shown any more."""
    letter = _letter("j1")
    async with sessions.begin() as session:
        first = await insert_dead_letter(session, letter)
    await Dispatcher(sessions).run(REGISTRY["create_user"], Delivery("j1", 2, ("Jane",), {}))
    after = await _letters(sessions)
    async with sessions.begin() as session:
        second = await insert_dead_letter(session, letter)

    assert (first, after, second) == (True, [], False)


@pytest.fixture
def run(environment: dict[str, str]) -> Run:
    """Return a function that runs ``users-worker dead``."""

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return warm.run([sys.executable, "-m", "worker", "dead", *arguments], environment | {"COLUMNS": "160"})

    return run


async def test_an_operator_lists_shows_retries_and_discards(
    start_worker: StartWorker, client: JobClient, redis: Redis, sessions: Sessions, run: Run
) -> None:
    """Through real processes: garbage and a wrong field die; one is shown, retried in vain, and discarded."""
    assert sessions is not None
    start_worker()
    await redis.set("arq:job:garbage", b"\xffgarbage")
    message: dict[str, object] = {"t": None, "f": "create_user", "a": [], "k": {"nme": "Secret"}, "et": 1}
    await redis.set("arq:job:wrong", json.dumps(message))
    await redis.zadd("arq:queue", {"garbage": 1, "wrong": 1})
    for job_id, kind in (("garbage", MalformedMessageError), ("wrong", InvalidPayloadError)):
        handle = await client.enqueue(CreateUser(name="x"), key=job_id)
        with pytest.raises(kind):
            await handle.result(timeout=timedelta(seconds=20))

    listed = run("list", "--json")
    filtered = run("list", "--json", "--reason", "malformed_message", "--since", "1h")
    table = run("list")
    shown = run("show", "wrong")
    put_back = run("retry", "wrong")
    with pytest.raises(InvalidPayloadError):
        await (await client.enqueue(CreateUser(name="x"), key="wrong")).result(timeout=timedelta(seconds=20))
    discarded = run("discard", "--all", "--yes")
    empty = run("show", "wrong")

    assert {(letter["job_id"], letter["reason"]) for letter in json.loads(listed.stdout)} == {
        ("garbage", "malformed_message"),
        ("wrong", "invalid_payload"),
    }
    assert [letter["job_id"] for letter in json.loads(filtered.stdout)] == ["garbage"]
    assert "invalid_payload" in table.stdout
    assert "Secret" not in table.stdout + listed.stdout
    assert json.loads(json.loads(shown.stdout)["message"])["k"] == {"nme": "Secret"}
    assert put_back.stdout == "put back 1\n"
    assert discarded.stdout == "discarded 2\n"
    assert (empty.returncode, empty.stderr) == (1, "users-worker: no such dead job: see users-worker dead list\n")


async def test_a_retried_job_takes_effect_and_is_dead_no_more(
    start_worker: StartWorker, client: JobClient, redis: Redis, sessions: Sessions, run: Run
) -> None:
    """Retried twice as well: one effect."""
    async with sessions.begin() as session:
        await insert_dead_letter(session, _letter("j1"))

    retried = [run("retry", "--all").returncode for _ in range(2)]
    start_worker()
    answer = await (await client.enqueue(CreateUser(name="Jane"), key="j1")).result(timeout=timedelta(seconds=20))
    run("retry", "j1")

    async with sessions() as session:
        count = await session.scalar(text("SELECT count(*) FROM users"))
    assert (retried, answer.name, count) == ([0, 0], "Jane", 1)
    assert await _letters(sessions) == []
    assert await redis.zcard("arq:queue") == 0


class _NamelessUser(Payload[UserView]):
    """A producer of a version that allowed it."""

    job_name: ClassVar[str] = "create_user"
    name: str


async def test_a_letter_that_is_written_again_still_knows_its_request(sessions: Sessions) -> None:
    """Its worker died right after it, and so the job was delivered again: the same promise is still a duplicate."""
    broken = _NamelessUser(name="")
    async with sessions.begin() as session:
        await enqueue_in(session, broken, key="j1")

    for attempt in (1, 2):
        with pytest.raises(InvalidPayloadError):
            await Dispatcher(sessions).run(REGISTRY["create_user"], Delivery("j1", attempt, (), {"name": ""}))

    async with sessions.begin() as session:
        assert not (await enqueue_in(session, broken, key="j1")).is_new


@pytest.mark.usefixtures("starts_processes")
@pytest.mark.parametrize("arguments", [["retry"], ["discard"], ["discard", "--all", "j1"], ["list", "--since", "soon"]])
def test_a_bulk_command_wants_to_be_told(run: Run, arguments: list[str]) -> None:
    """Ids or --all, not both and not neither."""
    done = run(*arguments)

    assert done.returncode == 2
    assert "Traceback" not in done.stderr
