"""Whether this process makes spans, and which trace context a message gets. Imports no OpenTelemetry.

Spans are made if the process has set up an SDK. Who has, has imported OpenTelemetry's API; so without that there is
nothing to look for, and to enqueue or to run a job costs one look into ``sys.modules`` more. Without an SDK a trace
context is passed on as it came: from a request to its job, and from a job to its follow-ups.
"""

import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from arqonce.payloads import AnyPayload
from arqonce.wire.trace import NO_TRACE, Carrier, read_trace

if TYPE_CHECKING:
    from arqonce.tracing.spans import Spans

_API = "opentelemetry.trace"

_log = logging.getLogger("arqonce.tracing")

_carried: ContextVar[Carrier] = ContextVar("carried", default=NO_TRACE)
"""The trace context that came from outside, for a process or a moment that has no span."""


def active_spans() -> "Spans | None":
    """Return what makes spans; ``None`` if the process has set up no SDK."""
    if _API not in sys.modules:
        return None
    spans = _load()
    return spans if spans is not None and spans.is_recording else None


@cache
def _load() -> "Spans | None":
    try:
        from arqonce.tracing.spans import Spans  # noqa: PLC0415 - imports OpenTelemetry
    except ImportError as error:
        _log.warning("OpenTelemetry cannot be used: install 'arqonce[otel]'", exc_info=error)
        return None
    return Spans()


def carried_trace() -> Carrier:
    """Return the trace context to pass on where no span is made."""
    if _API in sys.modules and (spans := _load()) is not None:
        return spans.current() or _carried.get()
    return _carried.get()


@contextmanager
def carrying(trace: Carrier) -> Iterator[None]:
    """Let jobs that are enqueued in the block have this trace context, unless a span is current there."""
    token = _carried.set(trace)
    try:
        yield
    finally:
        _carried.reset(token)


@contextmanager
def incoming_trace(headers: Mapping[str, str]) -> Iterator[None]:
    """Let jobs that are enqueued in the block continue the trace of a request, by its headers.

    For services that have no OpenTelemetry; where a span is current, that comes first. The names are ``traceparent``
    and ``tracestate``, in lower case unless the mapping ignores it. Invalid headers are ignored.
    """
    with carrying(read_trace(headers)):
        yield


class Sending(Protocol):
    """A context manager around sending jobs."""

    def __enter__(self) -> Self:
        """Make nothing yet."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the span, with the error if there is one."""
        ...

    def begin(self, payloads: Sequence[AnyPayload], ids: Sequence[str]) -> Carrier:
        """Begin the span of these jobs; return the trace context of their messages."""
        ...


class _Untraced:
    """Makes no span."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass

    def begin(self, payloads: Sequence[AnyPayload], ids: Sequence[str]) -> Carrier:  # noqa: ARG002 - as of those that make spans
        return carried_trace()


UNTRACED: Sending = _Untraced()


def sending(operation: str, queue: str, *, is_root: bool = False) -> Sending:
    """Return what makes the span of one call that sends jobs: ``enqueue`` into Redis, or ``promise`` in PostgreSQL.

    It is a child of the current span; with ``is_root`` it begins a trace.
    """
    spans = active_spans()
    return UNTRACED if spans is None else spans.sending(operation, queue, is_root=is_root)
