"""Attempts, batches and phases are spans: whose children they are, what they are linked to, and what they say."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce import JobClient, JobContext, JobFailedError, JobSpec, Phases, Registry, Result, RetryAfter
from arqonce.execution import phases
from arqonce.execution.attempt import Dispatcher
from arqonce.execution.delivery import Delivery
from arqonce.execution.verdict import RetryLater
from arqonce.ledger.tables import DeadJob
from arqonce.outbox import enqueue_in
from jobs import CreateUser
from jobs.registry import REGISTRY
from tests.arqonce.conftest import BuildWorker, build_recording_worker
from tests.arqonce.tracing.recording import PARENT, SECRET, TRACE, Recorded, Work, context_of, facts, header, links

Sessions = async_sessionmaker[AsyncSession]


def _delivery(attempt: int = 1) -> Delivery:
    return Delivery("j1", attempt, (), {}, trace=TRACE)


async def _run(sessions: Sessions, handler: Any, attempt: int = 1, **options: Any) -> None:  # noqa: ANN401 - handed on
    await phases.run(Dispatcher(sessions), JobSpec(Work, handler, **options), _delivery(attempt))


async def test_a_first_attempt_is_a_child_of_its_producer_and_what_its_handler_does_is_within(
    recorded: Recorded, sessions: Sessions
) -> None:
    """Linked to it as well. A follow-up is promised within the attempt, and the handler can pass the context on."""
    seen: list[Any] = []

    async def handle(session: AsyncSession, _payload: Work, job: JobContext) -> Result:
        seen.append(job.trace)
        with trace.get_tracer("handler").start_as_current_span("query"):
            await enqueue_in(session, CreateUser(name="Jane"))
        return Result()

    await _run(sessions, handle)

    promise, query, attempt = recorded.spans
    async with sessions() as session:
        (message,) = await session.scalars(text("SELECT message FROM arqonce.outbox"))
    assert (attempt.name, attempt.kind, attempt.status.status_code) == (
        "process arq:queue", SpanKind.CONSUMER, StatusCode.UNSET
    )  # fmt: skip
    assert (header(attempt.parent), links(attempt)) == (PARENT, [PARENT])
    assert [attempt.context, query.context] == [query.parent, promise.parent]
    assert context_of(message) == {"traceparent": header(promise.context), "tracestate": TRACE["tracestate"]}
    assert facts(attempt) == {
        "system": "arqonce", "operation.name": "process", "operation.type": "process",
        "destination.name": "arq:queue", "message.id": "j1", "name": "work", "attempt": 1, "outcome": "succeeded",
    }  # fmt: skip
    assert seen == [TRACE]
    assert not trace.get_current_span().get_span_context().is_valid


class _FullError(JobFailedError):
    code = "full"


@pytest.mark.parametrize(
    ("error", "ended"),
    [
        (KeyError(SECRET), ("retried", "KeyError", StatusCode.ERROR)),
        (RetryAfter(timedelta(seconds=1)), ("retried", None, StatusCode.UNSET)),
        (_FullError(SECRET), ("refused", "full", StatusCode.UNSET)),
    ],
)
async def test_a_later_attempt_begins_a_trace_and_says_how_it_ended(
    recorded: Recorded, sessions: Sessions, error: Exception, ended: tuple[str, str | None, StatusCode]
) -> None:
    """It is linked to its producer. A refusal and a wish for another attempt are no errors; no text is told."""

    async def handle(_session: AsyncSession, _payload: Work) -> Result:
        raise error

    with pytest.raises((RetryLater, _FullError)):
        await _run(sessions, handle, 2)

    (span,) = recorded.spans
    said = facts(span)
    assert (span.parent, links(span)) == (None, [PARENT])
    assert (said["outcome"], said.get("error.type"), span.status.status_code) == ended
    assert (said["attempt"], span.status.description, span.events) == (2, None, ())
    assert SECRET not in span.to_json()


async def test_a_dead_letter_keeps_its_trace(recorded: Recorded, sessions: Sessions) -> None:
    """So that a retry is linked to it; what a database says of people is not in the span."""

    async def handle(session: AsyncSession, _payload: Work) -> Result:
        await session.execute(text("SELECT CAST(:email AS int)"), {"email": SECRET})
        return Result()

    with pytest.raises(Exception, match="database failed"):
        await _run(sessions, handle)

    (span,) = recorded.spans
    async with sessions() as session:
        letter = await session.get_one(DeadJob, "j1")
    assert context_of(letter.message) == TRACE
    assert (facts(span)["outcome"], facts(span)["error.type"]) == ("dead", "database_failed")
    assert SECRET not in span.to_json()


async def test_each_phase_is_a_span_and_each_attempt_of_the_store(recorded: Recorded, sessions: Sessions) -> None:
    """A store that runs again does not work again."""
    stores = [KeyError("once more")]

    async def work(_payload: Work) -> str:
        return ""

    async def store(_session: AsyncSession, _payload: Work, _outcome: str) -> Result:
        if stores:
            raise stores.pop()
        return Result()

    await _run(sessions, Phases(work=work, store=store))

    attempts = recorded.named("process arq:queue")
    inner = [span for span in recorded.spans if span not in attempts]
    assert [(span.name, span.parent) for span in inner] == [
        ("work work", attempts[0].context), ("store work", attempts[0].context), ("store work", attempts[1].context)
    ]  # fmt: skip
    assert [header(span.parent) for span in attempts] == [PARENT, "none"]
    assert [facts(span).get("error.type") for span in inner] == [None, "KeyError", None]


async def test_a_batch_is_one_span_linked_to_each_producer(
    recorded: Recorded, sessions: Sessions, client: JobClient, build: BuildWorker
) -> None:
    """In a worker. One that fails says so; the attempts that its jobs have then are children of their producers."""

    async def handle(_session: AsyncSession, _payload: Work) -> Result:
        return Result()

    async def fail(_session: AsyncSession, _payloads: Sequence[Work]) -> list[Result]:
        raise KeyError(SECRET)

    for payload in [CreateUser(name="Jane"), Work(), CreateUser(name="Joan"), Work()]:
        await client.enqueue(payload)
    sent = [header(span.context) for span in recorded.named("enqueue arq:queue")]
    registry = Registry(REGISTRY["create_user"], JobSpec(Work, handle, batch=fail))

    await (await build_recording_worker(build, registry, sessions)).async_run()

    spans = recorded.named("process arq:queue")
    batches = {facts(span)["name"]: span for span in spans if facts(span).get("batch.message_count") == 2}
    alone = [span for span in spans if span not in batches.values()]
    assert {name: (span.parent, sorted(links(span))) for name, span in batches.items()} == {
        "create_user": (None, sorted([sent[0], sent[2]])),
        "work": (None, sorted([sent[1], sent[3]])),
    }
    assert {name: facts(span).get("error.type") for name, span in batches.items()} == {
        "create_user": None, "work": "batch_failed"
    }  # fmt: skip
    assert sorted(header(span.parent) for span in alone) == sorted([sent[1], sent[3]])
    assert SECRET not in "".join(span.to_json() for span in spans)
