"""Makes functions of arq's of our jobs, and arq's view of malformed messages: for arq's own worker class, as it is.

Our class needs none of it (``arqonce.arq.worker``). Decides nothing: ``execution`` does.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any, NamedTuple, cast

from arq.typing import WorkerCoroutine
from arq.worker import Function, Retry, func

from arqonce.backoff import backoff
from arqonce.execution import phases
from arqonce.execution.attempt import Dispatcher
from arqonce.execution.delivery import AnySpec, Delivery
from arqonce.execution.progress import Progress
from arqonce.execution.refusals import Refused, refuse, why_unknown
from arqonce.execution.verdict import RetryLater
from arqonce.execution.work import MARGIN
from arqonce.failures import (
    InvalidMessageError,
    JobFailedError,
    MalformedMessageError,
    UnknownJobError,
)
from arqonce.spec import Registry
from arqonce.wire.bounds import MAX_BYTES
from arqonce.wire.codec import encode
from arqonce.wire.message import read_envelope

REFUSE = "refuse_message"
"""The function that fails with the reason why a message could not be read. No payload may have this name."""

DISPATCHER = "arqonce.dispatcher"
"""The dispatcher's key in ``ctx``: a name that no application gives to anything of its own."""

_UNLIMITED = 1_000_000
"""arq's limit of attempts. The verdict has the real one; arq's would hide the true error behind its own."""


def build_functions(registry: Registry) -> list[Function]:
    """Return one function for each job, and one that refuses what cannot be read."""
    functions = [_build_function(spec) for spec in registry.by_name.values()]
    return [*functions, _function(_refuse, REFUSE, timeout=MARGIN)]


class Answered(NamedTuple):
    """A result on its way through arq to ``write_message``, with the tag of its request."""

    result: dict[str, Any]
    tag: str | None


class FailedError(Exception):
    """A failure on its way, in the same way. So one of arq's own, which a handler has raised, is none to arq."""

    def __init__(self, failure: BaseException, tag: str | None) -> None:
        super().__init__(type(failure).__name__)
        self.failure = failure
        self.tag = tag


def write_message(message: dict[str, Any]) -> bytes:
    """Serialize as ``encode`` does, with a result's tag: arq's ``job_serializer`` for the worker.

    Raises:
        InvalidMessageError: it is too large, or holds a value that JSON cannot represent.
    """
    answer = message.get("r")
    if isinstance(answer, Answered | FailedError):
        value = answer.result if isinstance(answer, Answered) else answer.failure
        message = message | {"r": value} | ({} if answer.tag is None else {"h": answer.tag})
    return encode(message)


def _build_function(spec: AnySpec) -> Function:
    async def run(ctx: dict[str, Any], /, *args: Any, **kwargs: Any) -> Answered:  # noqa: ANN401 - from the wire
        dispatcher: Dispatcher = ctx[DISPATCHER]
        enqueued_ms = round(ctx["enqueue_time"].timestamp() * 1000)
        delivery = Delivery(ctx["job_id"], ctx["job_try"], args, kwargs, enqueued_ms=enqueued_ms)
        progress = Progress()
        try:
            return Answered(await phases.run(dispatcher, spec, delivery, progress), progress.tag)
        except RetryLater as later:
            raise Retry(defer=later.delay) from later
        except Exception as error:
            raise FailedError(error, progress.tag) from error

    return _function(run, spec.name, timeout=phases.longest_run(spec) + MARGIN)


def _function(run: Callable[..., Coroutine[Any, Any, Any]], name: str, *, timeout: timedelta) -> Function:
    # arq's type for a coroutine is a protocol that forbids positional-only arguments; ours need one, because a
    # message may have a field named "ctx".
    coroutine = cast("WorkerCoroutine", _retried_when_late(run, timeout))
    return func(coroutine, name=name, timeout=timeout, max_tries=_UNLIMITED)


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
    try:
        return await refuse(ctx[DISPATCHER], Refused(failure, ctx["job_id"], message, ctx["job_try"]))
    except RetryLater as later:
        raise Retry(defer=later.delay) from later


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
        try:
            message = read_envelope(data)
        except InvalidMessageError as error:
            return _refusal(MalformedMessageError(str(error)), data)
        if "s" not in message and message["f"] not in self._registry:
            return _refusal(UnknownJobError(why_unknown(message["f"], self._registry)), data)
        return message


def _refusal(error: JobFailedError, message: bytes) -> dict[str, Any]:
    return {"t": None, "f": REFUSE, "a": (error.code, error.message, message[:MAX_BYTES]), "k": {}, "et": 0}
