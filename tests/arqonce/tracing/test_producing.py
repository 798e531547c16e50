"""Each way in has the span of a producer, and its messages carry the context of that."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode
from redis import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce import (
    JobClient,
    QueueUnavailableError,
    SyncJobClient,
    enqueue_in,
    enqueue_in_sync,
    enqueue_many_in,
    enqueue_many_in_sync,
)
from jobs import CreateUser, FindUser
from tests.arqonce.schedules.scheduling import MINUTE, Clock, every_minute, started
from tests.arqonce.tracing.recording import Recorded, context_of, facts, header

Sessions = async_sessionmaker[AsyncSession]
JANE = CreateUser(name="Jane", email="jane@example.org")
SOME = [JANE, FindUser(email="jane@example.org")]


@pytest.fixture
def store(valkey_url: str) -> Iterator[Any]:
    """Yield a blocking client of an empty Valkey."""
    with Redis.from_url(valkey_url) as store:
        store.flushall()
        yield store


@pytest.mark.parametrize("is_blocking", [False, True])
async def test_enqueue_is_a_span_within_the_request(
    recorded: Recorded,
    store: Any,  # noqa: ANN401 - redis-py's, whose answers are typed as if they might have to be awaited
    valkey_url: str,
    *,
    is_blocking: bool,
) -> None:
    """One for each call: also for that of many jobs, of which all have its context."""
    tracer = trace.get_tracer("service")

    with tracer.start_as_current_span("request") as request:
        if is_blocking:
            with SyncJobClient(valkey_url) as blocking:
                blocking.enqueue(JANE, key="k1")
                blocking.enqueue_many(SOME, keys=["k2", "k3"])
        else:
            async with JobClient(valkey_url) as client:
                await client.enqueue(JANE, key="k1")
                await client.enqueue_many(SOME, keys=["k2", "k3"])

    one, many, _ = recorded.spans
    sent = [context_of(store.get(f"arq:job:{key}")) for key in ("k1", "k2", "k3")]
    assert sent == [{"traceparent": header(span.context)} for span in (one, many, many)]
    assert [(span.name, span.kind, span.parent) for span in (one, many)] == [
        ("enqueue arq:queue", SpanKind.PRODUCER, request.get_span_context())
    ] * 2
    said = {"system": "arqonce", "operation.name": "enqueue", "operation.type": "send", "destination.name": "arq:queue"}
    assert facts(one) == said | {"message.id": "k1", "name": "create_user"}
    assert facts(many) == said | {"batch.message_count": 2}


@contextmanager
def _in_request() -> Iterator[None]:
    with trace.get_tracer("service").start_as_current_span("request"):
        yield


async def _promise(sessions: Sessions, _url: str) -> list[bool]:
    async with sessions.begin() as session:
        with _in_request():
            one = await enqueue_in(session, JANE, key="k1", queue="q")
        return [one.is_new, *(job.is_new for job in await enqueue_many_in(session, SOME, keys=["k1", "k2"], queue="q"))]


async def _promise_blocking(_sessions: Sessions, url: str) -> list[bool]:
    def promise() -> list[bool]:
        with psycopg.connect(url) as connection:
            with _in_request():
                one = enqueue_in_sync(connection, JANE, key="k1", queue="q")
            many = enqueue_many_in_sync(connection, SOME, keys=["k1", "k2"], queue="q")
            return [one.is_new, *(job.is_new for job in many)]

    return await asyncio.to_thread(promise)


@pytest.mark.parametrize("promise", [_promise, _promise_blocking])
async def test_a_promise_is_a_span_whose_context_waits_in_the_outbox(
    recorded: Recorded, sessions: Sessions, postgres_url: str, promise: Callable[..., Any]
) -> None:
    """The same request in another trace is the same request: the first keeps its trace."""
    are_new = await promise(sessions, postgres_url)

    one, request, many = recorded.spans
    async with sessions() as session:
        rows = (await session.execute(text("SELECT job_id, message FROM arqonce.outbox ORDER BY job_id"))).all()
    assert are_new == [True, False, True]
    assert [(job_id, context_of(message)) for job_id, message in rows] == [
        (job_id, {"traceparent": header(span.context)}) for job_id, span in (("k1", one), ("k2", many))
    ]
    assert [(span.name, span.kind, span.parent) for span in (one, many)] == [
        ("promise q", SpanKind.PRODUCER, request.context),
        ("promise q", SpanKind.PRODUCER, None),
    ]


async def test_each_slot_of_a_schedule_begins_a_trace(recorded: Recorded, sessions: Sessions) -> None:
    """Whatever is current where the scheduler runs; the first look at a payload is no slot."""
    clock = Clock()
    with _in_request():
        scheduler = await started(sessions, clock, every_minute())
        await scheduler.try_payloads()
        clock.now += 2 * MINUTE
        await scheduler.promise_due()

    slots = recorded.named("promise arq:queue")
    async with sessions() as session:
        messages = list(await session.scalars(text("SELECT message FROM arqonce.outbox ORDER BY due_at")))
    assert [context_of(message)["traceparent"] for message in messages] == [header(span.context) for span in slots]
    assert [span.parent for span in slots] == [None, None]
    assert len({span.context and span.context.trace_id for span in slots}) == 2


async def test_what_cannot_be_sent_is_an_error_without_its_text(recorded: Recorded) -> None:
    """By its class alone: texts may repeat what people have sent."""
    client = JobClient("redis://127.0.0.1:1", retries=0)
    with pytest.raises(QueueUnavailableError):
        await client.enqueue(JANE)
    await client.aclose()

    span = recorded.one("enqueue arq:queue")
    assert (span.status.status_code, span.status.description, span.events) == (StatusCode.ERROR, None, ())
    assert facts(span)["error.type"] == "QueueUnavailableError"
    assert "jane" not in span.to_json().lower()
