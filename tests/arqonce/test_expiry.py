"""A job that no worker has started when it expires does not run: on record, and whoever waits is told."""

import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest
from arq.jobs import deserialize_job_raw
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from structlog.testing import capture_logs

from arqonce import (
    InvalidMessageError,
    JobClient,
    JobExpiredError,
    JobSpec,
    Payload,
    Registry,
    Result,
    enqueue_in,
)
from arqonce.execution.answers import Answer
from arqonce.execution.attempt import Dispatcher
from arqonce.execution.batch import run_batch
from arqonce.execution.delivery import Delivery
from arqonce.relay.relay import Relay
from arqonce.wire.codec import decode
from arqonce.wire.keys import now_ms
from arqonce.wire.message import read_message
from arqonce.wire.request import write_job
from tests.arqonce.conftest import BuildWorker, build_recording_worker
from tests.promised import KEEP, execute, where

Sessions = async_sessionmaker[AsyncSession]


class Remind(Payload[Result]):
    """Remind somebody, while it matters."""

    job_name: ClassVar[str] = "remind"
    name: str = "Jane"


RUN: list[str] = []


async def remind(session: AsyncSession, payload: Remind) -> Result:  # noqa: ARG001 - every handler gets one
    """Note that it ran."""
    RUN.append(payload.name)
    return Result()


async def remind_all(session: AsyncSession, payloads: list[Remind]) -> list[Result]:
    """Note that they ran together."""
    return [await remind(session, payload) for payload in payloads]


SPEC: JobSpec[Any, Any] = JobSpec(Remind, remind, batch=remind_all)  # type: ignore[arg-type] # a list is a sequence
ALONE: JobSpec[Any, Any] = JobSpec(Remind, remind)


@pytest.fixture(autouse=True)
def _nothing_has_run(sessions: Sessions) -> None:
    assert sessions is not None  # they remove what is left
    RUN.clear()


async def _receipt(sessions: Sessions, job_id: str) -> Any:  # noqa: ANN401 - JSON
    async with sessions() as session:
        query = text("SELECT failure FROM arqonce.receipts WHERE job_id = :id")
        return await session.scalar(query, {"id": job_id})


@pytest.mark.parametrize("ahead", [3600, -3600])
async def test_a_worker_whose_clock_is_off_goes_by_the_clock_of_redis(
    client: JobClient, sessions: Sessions, build: BuildWorker, monkeypatch: pytest.MonkeyPatch, ahead: int
) -> None:
    """Else it would end jobs that nobody has run, or run those that are of no use any more. Waits are told right."""
    late = await client.enqueue(Remind(), key="late", expires=timedelta(milliseconds=1))
    good = await client.enqueue(Remind(name="Ann"), key="good", expires=timedelta(minutes=1))
    true_ns = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: true_ns() + ahead * 10**9)
    monkeypatch.setattr(time, "time", lambda: true_ns() / 1e9 + ahead)

    with capture_logs() as logs:
        await (await build_recording_worker(build, Registry(ALONE), sessions)).async_run()

    waited = [log["waited_ms"] for log in logs if log["event"] == "job done"]
    assert RUN == ["Ann"]
    assert [0 <= ms < 60_000 for ms in waited] == [True]
    await good.result()
    with pytest.raises(JobExpiredError):
        await late.result()


@pytest.mark.parametrize("registry", [Registry(SPEC), Registry(ALONE)], ids=["in batches", "alone"])
async def test_an_expired_job_ends_without_having_run(
    client: JobClient, sessions: Sessions, build: BuildWorker, registry: Registry
) -> None:
    """Direct or promised, its producer is told, its receipt says so, and it is no dead letter; others run."""
    expires = timedelta(milliseconds=1)
    late = [await client.enqueue(Remind(), key=f"late{number}", expires=expires) for number in range(3)]
    good = await client.enqueue(Remind(name="Ann"), expires=timedelta(hours=1))
    async with sessions.begin() as session:
        promised = await enqueue_in(session, Remind(), key="promised", expires=expires)
    await Relay(sessions, client._redis, queues=["arq:queue"], keep=KEEP, wakeup=None).turn()

    await (await build_recording_worker(build, registry, sessions)).async_run()

    for handle in [*late, client.handle(promised)]:
        with pytest.raises(JobExpiredError, match="expired: no worker had started the job"):
            await handle.result(timeout=5)
    await good.result(timeout=5)
    assert await where(sessions, "late0", "promised") == {"late0": ["receipts"], "promised": ["receipts"]}
    assert (await _receipt(sessions, "promised"))["type"] == "expired"
    assert RUN == ["Ann"]


async def test_an_attempt_that_has_begun_is_repeated(sessions: Sessions) -> None:
    """Its worker died, or it failed: only the first attempt asks for the time. Delivered again, the end stays."""
    dispatcher = Dispatcher(sessions)

    await dispatcher.run(SPEC, Delivery("begun", 2, (), {}, expires_ms=1))
    with pytest.raises(JobExpiredError):
        await dispatcher.run(SPEC, Delivery("late", 1, (), {}, expires_ms=1))
    with pytest.raises(JobExpiredError):
        await dispatcher.run(SPEC, Delivery("late", 2, (), {}))
    answers = await run_batch(
        dispatcher, SPEC, [Delivery("a", 1, (), {}, expires_ms=1), Delivery("b", 1, (), {}, expires_ms=now_ms() + 9999)]
    )

    assert RUN == ["Jane", "Jane"]
    assert isinstance(answers[0], Answer)
    assert isinstance(answers[0].end, JobExpiredError)
    assert isinstance(answers[1], Answer)
    assert answers[1].value == {}


async def test_a_job_that_took_effect_is_not_told_as_expired(sessions: Sessions) -> None:
    """Its worker was lost between commit and answer, in an outage that counts no attempt."""
    dispatcher = Dispatcher(sessions)
    await dispatcher.run(SPEC, Delivery("done", 1, (), {}))

    answer = await dispatcher.run(SPEC, Delivery("done", 1, (), {}, expires_ms=1))

    assert (answer, RUN) == ({}, ["Jane"])


async def test_a_promise_that_an_outage_kept_for_weeks_is_expired(sessions: Sessions, redis: Redis) -> None:
    """The relay leaves its end to a worker, instead of writing a dead letter for somebody to look at."""
    async with sessions.begin() as session:
        await enqueue_in(session, Remind(), key="late", expires=timedelta(milliseconds=1))
        await enqueue_in(session, Remind(), key="lasting", expires=timedelta(days=99))
    await execute(sessions, "UPDATE arqonce.outbox SET created_at = created_at - interval '40 days'")
    await execute(sessions, "UPDATE arqonce.outbox SET due_at = due_at - interval '40 days'")

    await Relay(sessions, redis, queues=["arq:queue"], keep=KEEP, wakeup=None).turn()

    assert await where(sessions, "late", "lasting") == {"late": ["outbox"], "lasting": ["dead"]}
    assert await redis.zrange("arq:queue", 0, -1) == [b"late"]
    assert await redis.pttl("arq:job:late") > timedelta(days=6) / timedelta(milliseconds=1)


async def test_the_expiry_is_on_the_wire_and_others_read_the_message(client: JobClient, redis: Redis) -> None:
    """In ms since 1970, and the message lives longer; arq ignores it, as our reader does what a later one may add."""
    at = datetime.now(UTC) + timedelta(days=30)

    await client.enqueue(Remind(), key="j1", expires=at)

    message = await redis.get("arq:job:j1")
    later = json.dumps(json.loads(message) | {"later": {"than": "us"}}).encode()
    assert json.loads(message)["xt"] == round(at.timestamp() * 1000)
    assert await redis.pttl("arq:job:j1") > timedelta(days=36) / timedelta(milliseconds=1)
    assert deserialize_job_raw(message, deserializer=decode)[0] == "remind"
    assert read_message(later) == read_message(message)


WRONG: dict[str, dict[str, object]] = {
    "has passed": {"expires": timedelta(0)},
    "has passed: the job would never run": {"expires": datetime(2020, 1, 1, tzinfo=UTC)},
    "has no time zone": {"expires": datetime(2090, 1, 1)},  # noqa: DTZ001 - the mistake
    "of type int": {"expires": 60},
    "year 9999": {"expires": timedelta.max},
    "before it is due: expires counts from now": {"expires": timedelta(minutes=1), "delay": timedelta(hours=1)},
}


@pytest.mark.parametrize(("problem", "options"), WRONG.items(), ids=WRONG)
async def test_what_cannot_be_meant_is_refused(
    client: JobClient, sessions: Sessions, problem: str, options: dict[str, Any]
) -> None:
    """With the cure, before anything is sent."""
    with pytest.raises(InvalidMessageError, match=problem):
        await client.enqueue(Remind(), **options)
    with pytest.raises(InvalidMessageError, match=problem):
        async with sessions.begin() as session:
            await enqueue_in(session, Remind(), **options)


def test_a_job_without_expiry_has_the_message_that_it_had() -> None:
    """Older workers and their tests see no difference."""
    assert set(decode(write_job(Remind(), enqueued_ms=1))) == {"t", "f", "a", "k", "et"}
