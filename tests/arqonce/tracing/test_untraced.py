"""Without a tracer a trace context is passed on as it came; without OpenTelemetry, too; and whatever a tracer does."""

import json
import subprocess
import sys

import pytest
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce import JobSpec, Result, enqueue_in, incoming_trace
from arqonce.client.requests import Request, at_once
from arqonce.execution import phases
from arqonce.execution.attempt import Dispatcher
from arqonce.execution.delivery import Delivery
from arqonce.tracing import sending
from arqonce.wire.message import read_message
from arqonce.wire.request import write_job
from jobs import CreateUser
from tests.arqonce.tracing.recording import PARENT, TRACE, Recorded, Work, context_of, header

Sessions = async_sessionmaker[AsyncSession]
JANE = CreateUser(name="Jane")
_ZEROS = ("0" * 32, "0" * 16)
_HOSTILE: list[object] = [
    None, 5, [], "x", PARENT, {}, {"traceparent": None}, {"traceparent": [PARENT]}, {"traceparent": PARENT + "\n"},
    {"traceparent": PARENT.upper()}, {"traceparent": PARENT + "-00"}, {"traceparent": "ff" + PARENT[2:]},
    {"traceparent": f"00-{_ZEROS[0]}-b7ad6b7169203331-01"}, {"traceparent": PARENT[:36] + _ZEROS[1] + "-01"},
    {"traceparent": "0" * 100_000}, {"traceparent": "00-\u0660" + PARENT[4:]},
]  # fmt: skip


@pytest.mark.parametrize("hostile", _HOSTILE, ids=lambda value: repr(value)[:40])
def test_a_hostile_context_is_passed_over(hostile: object) -> None:
    """It is no reason to refuse a job; and a header with it is none."""
    message = json.dumps(json.loads(write_job(JANE, enqueued_ms=1)) | {"tc": hostile}).encode()
    with incoming_trace(hostile if isinstance(hostile, dict) else {}):
        (sent,) = at_once(Request.steps([JANE], sending=sending("enqueue", "q"))).messages

    assert read_message(message) == read_message(write_job(JANE, enqueued_ms=1))
    assert context_of(sent) is None


@pytest.mark.parametrize("state", [None, 5, "", "x" * 513, "a=b\r\nX: y", "a=\u20ac", "a=\x00"])
def test_a_hostile_state_does_not_cost_the_trace(state: object) -> None:
    """Nor does an entry that is none of W3C's, which is not kept."""
    said = {"traceparent": PARENT, "tracestate": state, "baggage": "email=jane"}
    message = json.dumps(json.loads(write_job(JANE, enqueued_ms=1)) | {"tc": said}).encode()

    assert read_message(message).trace == {"traceparent": PARENT}


async def test_without_a_tracer_a_request_a_job_and_its_follow_up_have_one_context(sessions: Sessions) -> None:
    """As it came: the one after it may have a tracer."""

    async def handle(session: AsyncSession, _payload: Work) -> Result:
        await enqueue_in(session, JANE)
        return Result()

    with incoming_trace(TRACE):
        (message,) = at_once(Request.steps([JANE], sending=sending("enqueue", "q"))).messages
    (later,) = at_once(Request.steps([JANE], sending=sending("enqueue", "q"))).messages
    delivery = Delivery("j1", 1, (), {}, trace=read_message(message).trace)
    await phases.run(Dispatcher(sessions), JobSpec(Work, handle), delivery)

    async with sessions() as session:
        (promised,) = await session.scalars(text("SELECT message FROM arqonce.outbox"))
    assert [context_of(one) for one in (message, later, promised)] == [TRACE, None, TRACE]


def test_with_a_tracer_the_request_is_the_parent(recorded: Recorded) -> None:
    """If nothing has made a span of it."""
    with incoming_trace(TRACE), sending("enqueue", "q") as span:
        at_once(Request.steps([JANE], sending=span))

    assert header(recorded.one("enqueue q").parent) == PARENT


class _Broken(SpanProcessor):
    def on_start(self, span: Span, parent_context: Context | None = None) -> None:  # noqa: ARG002 - the SDK's
        if (span.attributes or {}).get("messaging.destination.name") != "q":
            raise KeyError

    def on_end(self, span: ReadableSpan) -> None:  # noqa: ARG002 - the SDK's
        raise ValueError


async def test_a_tracer_that_fails_costs_no_job(
    provider: TracerProvider, sessions: Sessions, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged once. A job that would end with its error would have no record."""
    provider.add_span_processor(_Broken())

    async def handle(session: AsyncSession, _payload: Work) -> Result:
        await enqueue_in(session, JANE, queue="q")  # can begin, and cannot end
        return Result()

    spec = JobSpec(Work, handle)
    for number in range(3):
        delivery = Delivery(f"j{number}", 1, (), {}, trace=TRACE)
        assert await phases.run(Dispatcher(sessions), spec, delivery) == {}

    async with sessions() as session:
        counts = await session.execute(
            text("SELECT count(*), (SELECT count(*) FROM arqonce.receipts) FROM arqonce.outbox")
        )
    assert tuple(counts.one()) == (3, 3)
    assert [record.message for record in caplog.records if record.name == "arqonce.tracing.spans"] == [
        "the tracer cannot begin the span of an attempt; jobs go on without",
        "the tracer cannot end a span; jobs go on without",
    ]


@pytest.mark.usefixtures("starts_processes")
def test_opentelemetry_is_not_loaded_by_us() -> None:
    """Neither by a producer nor by an attempt: what nobody has set up costs nothing."""
    code = (
        "import sys, arqonce.execution.work, arqonce.client.client, arqonce.client.requests as requests; "
        "from arqonce.tracing import active_spans, sending; from jobs import CreateUser; "
        "requests.at_once(requests.Request.steps([CreateUser(name='Jane')], sending=sending('enqueue', 'q'))); "
        "print(active_spans(), 'opentelemetry' in sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "None False\n"
