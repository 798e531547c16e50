"""Makes arq's functions of our jobs, and arq's view of malformed messages. Decides nothing: dispatch does."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, cast

import structlog
from arq.typing import WorkerCoroutine
from arq.worker import Function, Retry, RetryJob, func

from arqonce.backoff import backoff
from arqonce.engine.calls import Answer, BatchCall, BatchFunction, RecordingFunction
from arqonce.execution.attempt import Dispatcher
from arqonce.execution.batch import run_batch
from arqonce.execution.containment import CONTAINED
from arqonce.execution.dead_letters import write_letter
from arqonce.execution.delivery import AnySpec, Delivery
from arqonce.execution.verdict import RetryLater
from arqonce.failures import (
    InvalidMessageError,
    JobFailedError,
    MalformedMessageError,
    UnknownJobError,
    failure_from_wire,
    failure_to_wire,
)
from arqonce.spec import Registry
from arqonce.wire.arguments import read_payload
from arqonce.wire.codec import MAX_BYTES, decode, tag_of, tagged
from arqonce.wire.keys import LATEST_MS, payload_tag


class UncountedRetry(Retry):
    """Run the job again, and do not count the attempt. To arq's own class it is any retry."""


_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.arq.functions")

MARGIN = timedelta(seconds=5)
"""arq's own timeout is so much longer than our deadline. Only arq's own worker class applies it."""

_UNTIL_GIVEN_AGAIN = timedelta(seconds=5)
"""How often to check whether the relay has sent again a promised job whose message Redis has lost."""

REFUSE = "refuse_message"
"""arq function that fails with the reason why a message could not be read. No payload may have this name."""

ABORT = "record_abort"
"""arq function that records an abort: our worker class calls it with a job's name and arguments, no message can."""

WAS_LEFT, EXCUSED = "was_left", "excused"
"""In a job's context: whether its last attempt never ended, and how many crashes are not counted. Only our worker class
knows."""

OVERDUE = "record_overdue"
"""arq function that decides on a job whose handler does not end. As with the one above, no message can call it."""

_UNLIMITED = 1_000_000
"""arq's limit of attempts. Dispatch has the real one; arq's would hide the true error behind its own."""


def build_functions(registry: Registry) -> list[Function]:
    """Return one arq function for each job, one that refuses what cannot be read, and one that records an abort."""
    functions: list[Function] = [_build_function(spec) for spec in registry.by_name.values()]
    return [
        *functions,
        _function(_refuse, REFUSE, timeout=MARGIN),
        _function(_build_abort(registry), ABORT, timeout=MARGIN),
        _function(_build_overdue(registry), OVERDUE, timeout=MARGIN),
    ]


def _build_function(spec: AnySpec) -> RecordingFunction:
    single = _build_single(spec)
    if spec.batch is None:
        return single

    async def together(ctx: dict[str, Any], jobs: Sequence[BatchCall]) -> list[Answer]:
        calls = [(job.job_id, job.call) for job in jobs]
        deliveries = [
            Delivery(job_id, call.attempt, call.args, call.kwargs, excused=call.excused) for job_id, call in calls
        ]
        outcomes = await run_batch(ctx["dispatcher"], spec, deliveries)
        return [_as_retry(outcome) if isinstance(outcome, RetryLater) else outcome for outcome in outcomes]

    return BatchFunction(**vars(single), together=together, most=spec.max_batch)


def _as_retry(later: RetryLater) -> Retry:
    return (Retry if later.counts else UncountedRetry)(defer=later.delay)


def _as_end(error: Retry | RetryJob) -> JobFailedError:
    """Return the last error of a job, as it is recorded, where a handler has raised arq's ``Retry``.

    To arq's classes it would be one, and the job, which is dead, run on for ever.
    """
    end = failure_from_wire(failure_to_wire(error))
    tag = tag_of(error)
    return end if tag is None else tagged(end, tag)


def _build_single(spec: AnySpec) -> RecordingFunction:
    async def run(ctx: dict[str, Any], /, *args: Any, **kwargs: Any) -> dict[str, Any]:  # noqa: ANN401 - from the wire
        dispatcher: Dispatcher = ctx["dispatcher"]
        delivery = Delivery(
            ctx["job_id"], ctx["job_try"], args, kwargs, was_left=ctx.get(WAS_LEFT), excused=ctx.get(EXCUSED, 0)
        )
        try:
            return await dispatcher.run(spec, delivery)
        except RetryLater as later:
            raise _as_retry(later) from later
        except (Retry, RetryJob) as error:
            raise _as_end(error) from error

    return _function(run, spec.name, timeout=spec.deadline + MARGIN)


def _build_abort(registry: Registry) -> Callable[..., Coroutine[Any, Any, Any]]:
    async def abort(ctx: dict[str, Any], /, *args: Any) -> dict[str, Any] | None:  # noqa: ANN401 - from the wire
        name, positional, named = args
        if name not in registry:
            return None
        dispatcher: Dispatcher = ctx["dispatcher"]
        delivery = Delivery(ctx["job_id"], ctx["job_try"], positional, named, excused=ctx.get(EXCUSED, 0))
        with suppress(Exception), CONTAINED:  # dispatch decides what it means that it cannot be read
            asked = read_payload(registry[name].payload, positional, named)
            ctx["aborted"] = tagged(asyncio.CancelledError(), payload_tag(asked))
        try:
            return await dispatcher.abort(registry[name], delivery)
        except RetryLater as later:
            raise _as_retry(later) from later
        except (Retry, RetryJob) as error:
            raise _as_end(error) from error

    return abort


def _build_overdue(registry: Registry) -> Callable[..., Coroutine[Any, Any, Any]]:
    async def decide(ctx: dict[str, Any], /, *args: Any) -> dict[str, Any]:  # noqa: ANN401 - from the wire
        name, positional, named = args
        dispatcher: Dispatcher = ctx["dispatcher"]
        delivery = Delivery(ctx["job_id"], ctx["job_try"], positional, named, excused=ctx.get(EXCUSED, 0))
        try:
            return await dispatcher.end_overdue(registry[name], delivery)
        except RetryLater as later:
            raise _as_retry(later) from later

    return decide


def _function(run: Callable[..., Coroutine[Any, Any, Any]], name: str, *, timeout: timedelta) -> RecordingFunction:
    # arq's type for a coroutine is a protocol that forbids positional-only arguments; ours need one, because a
    # message may have a field named "ctx".
    coroutine = cast("WorkerCoroutine", _retried_when_late(run, timeout))
    return RecordingFunction(**vars(func(coroutine, name=name, timeout=timeout, max_tries=_UNLIMITED)))


def _retried_when_late(
    run: Callable[..., Coroutine[Any, Any, Any]], timeout: timedelta
) -> Callable[..., Coroutine[Any, Any, Any]]:
    """Return the function, made to answer the expiry of arq's timeout with another attempt.

    arq ends the job then: without a receipt, a dead letter or a log line. After a standstill of the process (a paused
    machine, a loop that was blocked) our own deadline and arq's timeout expire in one turn of the loop, and the outer
    one wins.
    """

    async def run_or_retry(ctx: dict[str, Any], /, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the function
        started = time.monotonic()
        try:
            return await run(ctx, *args, **kwargs)
        except asyncio.CancelledError as error:
            if time.monotonic() - started < timeout.total_seconds():
                raise  # an abort, or the worker's end
            raise Retry(defer=backoff(ctx["job_try"])) from error

    return run_or_retry


async def _refuse(ctx: dict[str, Any], /, *args: Any, **_kwargs: Any) -> dict[str, Any]:  # noqa: ANN401 - arq's signature
    code, text, message = args
    failure = JobFailedError.from_code(code, text)
    _log.warning("job refused", job_id=ctx["job_id"], reason=code)
    letter = write_letter(
        failure,
        failure,
        job_id=ctx["job_id"],
        job_name=None,
        message=message,
        attempts=ctx["job_try"],
        queue=ctx["dispatcher"].queue,
    )
    dispatcher: Dispatcher = ctx["dispatcher"]
    try:
        if not await dispatcher.bury(letter):
            return await _answer_on_record(dispatcher, ctx["job_id"], ctx["job_try"])
    except RetryLater as later:
        raise _as_retry(later) from later
    raise failure


async def _answer_on_record(dispatcher: Dispatcher, job_id: str, attempt: int) -> dict[str, Any]:
    """Return how a job whose message is missing has ended before; wait, if it was promised: the relay gives it again.

    Raises:
        Retry: it has not ended.
        RetryLater: the database does not tell.
        JobFailedError: it had failed.
    """
    answer = await dispatcher.answer_on_record(job_id, attempt)
    if answer is None:
        raise UncountedRetry(defer=_UNTIL_GIVEN_AGAIN)
    return answer


class MessageReader:
    """arq's deserializer for the worker: whatever lies in Redis, it neither raises nor returns a wrong type.

    A message that cannot be run is turned into a call of ``refuse_message``, so that it ends as a failed result.
    (arq dies of a message whose ``f``, ``t`` or ``et`` has the wrong type, again and again.)
    """

    def __init__(self, registry: Registry) -> None:
        """Accept the jobs of ``registry``."""
        self._registry = registry

    def __call__(self, data: bytes) -> dict[str, Any]:
        """Read a job or a result."""
        return self._read(data, may_be_result=True)

    def read_job(self, data: bytes) -> dict[str, Any]:
        """Read a job, also one that looks like a result: those have no place in the queue."""
        return self._read(data, may_be_result=False)

    def _read(self, data: bytes, *, may_be_result: bool) -> dict[str, Any]:
        try:
            message = {"t": None, "a": [], "k": {}} | decode(data)
            _require_envelope(message)
        except InvalidMessageError as error:
            return _refusal(MalformedMessageError(str(error)), data)
        is_result = may_be_result and "s" in message
        if not is_result and message["f"] not in self._registry:
            names = ", ".join(self._registry.names)
            text = f"this worker has no job {message['f'][:100]!r}; it has {names}. {_NOT_HERE}"
            return _refusal(UnknownJobError(text), data)
        return message


_NOT_HERE = (
    "A job needs a line in the registry of the worker's own version; those of another project come with its registry "
    "in WORKER_REGISTRY"
)


def refusal_arguments(error: JobFailedError, message: bytes) -> tuple[str, str, bytes]:
    """Return the arguments for ``refuse_message``: what is wrong with a job's message."""
    return error.code, error.message, message[:MAX_BYTES]


def _refusal(error: JobFailedError, message: bytes) -> dict[str, Any]:
    return {"t": None, "f": REFUSE, "a": refusal_arguments(error, message), "k": {}, "et": 0}


_ENVELOPE: dict[str, tuple[Callable[[Any], bool], str]] = {
    "f": (lambda value: isinstance(value, str), "a string: the job's name"),
    "a": (lambda value: isinstance(value, list), "a list: positional arguments, [] if there are none"),
    "k": (lambda value: isinstance(value, dict), "an object: the job's fields by name"),
    "t": (lambda value: value is None or (type(value) is int and 0 <= value < _UNLIMITED), "null"),
    "et": (
        lambda value: type(value) is int and 0 <= value <= LATEST_MS,
        "an integer: when it was enqueued, in ms since 1970",
    ),
}
"""What must be in a message, and how it is said."""


def _require_envelope(message: dict[str, Any]) -> None:
    for field, (fits, expected) in _ENVELOPE.items():
        if not fits(message.get(field)):
            text = f"the message's field {field!r} must be {expected}"
            raise InvalidMessageError(text)
