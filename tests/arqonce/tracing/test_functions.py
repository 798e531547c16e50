"""Attempts of arq's functions are spans, like those of a registry's jobs."""

from arq.connections import ArqRedis
from arq.worker import Retry
from opentelemetry import trace
from opentelemetry.trace import StatusCode

from arqonce import encode
from arqonce.tracing import carried_trace
from tests.arqonce.conftest import BuildWorker, Context
from tests.arqonce.tracing.recording import PARENT, SECRET, TRACE, Recorded, facts, header, links


async def _run(pool: ArqRedis, build: BuildWorker, function: object) -> None:
    """Run the function as a job whose producer has written a trace context."""
    message = {"t": None, "f": "work", "a": [SECRET], "k": {}, "et": 1, "tc": TRACE}
    await pool.psetex("arq:job:j1", 60_000, encode(message))
    await pool.zadd("arq:queue", {"j1": 1})
    await (await build(function)).main()


async def test_each_attempt_is_a_span_with_what_the_function_does_within(
    recorded: Recorded, pool: ArqRedis, build: BuildWorker
) -> None:
    """The first is a child of the producer's span, a later one begins a trace. arq's ``Retry`` is no error."""

    async def work(ctx: Context, _email: str) -> None:
        with trace.get_tracer("function").start_as_current_span("query"):
            pass
        if ctx["job_try"] == 1:
            raise Retry(defer=0.01)

    await _run(pool, build, work)

    query, first, _, second = recorded.spans
    assert query.parent == first.context
    assert (header(first.parent), second.parent, links(first), links(second)) == (PARENT, None, [PARENT], [PARENT])
    assert facts(first) == {
        "system": "arqonce", "operation.name": "process", "operation.type": "process",
        "destination.name": "arq:queue", "message.id": "j1", "name": "work", "attempt": 1, "outcome": "retried",
    }  # fmt: skip
    assert (facts(second)["attempt"], facts(second)["outcome"]) == (2, "succeeded")
    assert {span.status.status_code for span in (first, second)} == {StatusCode.UNSET}


async def test_a_failure_is_told_by_its_class_alone(recorded: Recorded, pool: ArqRedis, build: BuildWorker) -> None:
    """Its text may be a person's data, as arguments are."""

    async def work(_ctx: Context, email: str) -> None:
        raise KeyError(email)

    await _run(pool, build, work)

    (span,) = recorded.spans
    assert (facts(span)["outcome"], facts(span)["error.type"]) == ("dead", "KeyError")
    assert span.status.status_code is StatusCode.ERROR
    assert SECRET not in span.to_json()


async def test_without_a_tracer_the_context_is_passed_on(pool: ArqRedis, build: BuildWorker) -> None:
    """To what the function enqueues with our client."""
    seen = []

    async def work(_ctx: Context, _email: str) -> None:
        seen.append(dict(carried_trace()))

    await _run(pool, build, work)

    assert seen == [TRACE]
