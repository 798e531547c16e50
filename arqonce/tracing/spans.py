"""Makes spans with OpenTelemetry's API, by its conventions for messaging. Is imported only where that is in use.

No error of a tracer reaches a job or its producer: what fails here is logged once, and goes on without a span. Spans
have no text of errors and no fields of payloads: both may be a person's data.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from arqonce.payloads import AnyPayload
from arqonce.tracing import carried_trace, names
from arqonce.versions import version_of
from arqonce.wire.trace import NO_TRACE, TRACEPARENT, Carrier, read_trace

_SYSTEM = "arqonce"
"""``messaging.system`` of all spans, and the name of their tracer."""

Attributes = Mapping[str, str | int]

_W3C = TraceContextTextMapPropagator()
"""Whatever format a service uses for HTTP: messages have one, which other languages read."""

_log = logging.getLogger("arqonce.tracing.spans")


_WITHOUT_SDK = (trace.ProxyTracerProvider, trace.NoOpTracerProvider)


class Spans:
    """Makes spans with the tracer of the process's own provider."""

    def __init__(self) -> None:
        self._known: tuple[object, Tracer | None] = None, None

    @property
    def tracer(self) -> Tracer | None:
        """The tracer; ``None`` while no SDK is set up."""
        provider = trace.get_tracer_provider()
        known, tracer = self._known
        if provider is not known:
            tracer = None
            if not isinstance(provider, _WITHOUT_SDK):
                tracer = provider.get_tracer(_SYSTEM, version_of(_SYSTEM))
            self._known = provider, None if isinstance(tracer, trace.NoOpTracer) else tracer
        return self._known[1]

    @property
    def is_recording(self) -> bool:
        """Whether there is anybody to make spans for."""
        try:
            return self.tracer is not None
        except Exception as error:  # noqa: BLE001 - a provider named by the environment may not exist
            _log_once("look for a tracer", error)
            return False

    def current(self) -> Carrier:
        """Return the context of the current span; empty if there is none."""
        if not trace.get_current_span().get_span_context().is_valid:
            return NO_TRACE
        with _contained("read the current span"):
            return _current_carrier()
        return NO_TRACE

    def sending(self, operation: str, queue: str, *, is_root: bool = False) -> "SendingSpan":
        """Return what makes the span of one call that sends jobs."""
        return SendingSpan(self, operation, queue, is_root=is_root)

    def start(
        self,
        name: str,
        kind: SpanKind,
        attributes: Attributes,
        *,
        parent: Context | None = None,
        links: Sequence[Link] = (),
    ) -> Span:
        """Start a span; without a ``parent`` it is a child of the current one."""
        assert self.tracer is not None  # noqa: S101 - asked before
        return self.tracer.start_span(
            name, parent, kind, attributes, links, record_exception=False, set_status_on_exception=False
        )

    @contextmanager
    def consuming(
        self, queue: str, carriers: Sequence[Carrier], attributes: Attributes, *, is_child: bool
    ) -> Iterator["CurrentSpan"]:
        """Make the span of one attempt the current one.

        It is linked to each trace context, and a child of the first if it is to be; else it begins a trace.
        """
        span = CurrentSpan()
        with _contained("begin the span of an attempt"):
            contexts = {carrier[TRACEPARENT]: _W3C.extract(carrier, Context()) for carrier in carriers if carrier}
            links = [Link(trace.get_current_span(one).get_span_context()) for one in contexts.values()]
            first = next(iter(contexts.values()), None) if is_child else None
            facts = _facts("process", "process", queue) | dict(attributes)
            parent = Context() if first is None else first
            span.make_current(self.start(f"process {queue}", SpanKind.CONSUMER, facts, parent=parent, links=links))
        with span:
            yield span

    @contextmanager
    def inner(self, name: str) -> Iterator["CurrentSpan"]:
        """Make a span for a part of an attempt the current one."""
        span = CurrentSpan()
        with _contained("begin a span"):
            span.make_current(self.start(name, SpanKind.INTERNAL, {}))
        with span:
            yield span


class CurrentSpan:
    """A span that is current until its block ends; none if it could not be made."""

    def __init__(self) -> None:
        self._span: Span | None = None
        self._token: Any = None

    def make_current(self, span: Span) -> None:
        """Take a span."""
        self._span = span
        self._token = context.attach(trace.set_span_in_context(span))

    def note(self, error_type: str | None, attributes: Attributes | None = None, *, is_fault: bool = True) -> None:
        """Note how the block has ended."""
        with _contained("describe a span"):
            if self._span is None:
                return
            self._span.set_attributes(dict(attributes or {}))
            if error_type is not None:
                self._span.set_attribute(names.ERROR_TYPE, error_type)
                if is_fault:
                    self._span.set_status(Status(StatusCode.ERROR))

    def __enter__(self) -> Self:
        """Change nothing."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the span, and make the one before it current again."""
        with _contained("end a span"):
            if self._token is not None:
                context.detach(self._token)
            if self._span is not None:
                self._span.end()


class SendingSpan(CurrentSpan):
    """The span of one call that sends jobs. It begins when the jobs are known."""

    def __init__(self, spans: Spans, operation: str, queue: str, *, is_root: bool) -> None:
        super().__init__()
        self._spans = spans
        self._operation = operation
        self._queue = queue
        self._is_root = is_root

    def begin(self, payloads: Sequence[AnyPayload], ids: Sequence[str]) -> Carrier:
        """Begin; return the trace context of the messages: all that one call sends have the same."""
        with _contained("begin the span of a producer"):
            facts = _facts(self._operation, "send", self._queue)
            if len(ids) == 1:
                facts[names.MESSAGE_ID] = ids[0]
            else:
                facts[names.BATCH] = len(ids)
            jobs = {payload.job_name for payload in payloads}
            if len(jobs) == 1:
                facts[names.JOB_NAME] = jobs.pop()
            name = f"{self._operation} {self._queue}"
            self.make_current(self._spans.start(name, SpanKind.PRODUCER, facts, parent=self._parent()))
            return _current_carrier()
        return NO_TRACE

    def _parent(self) -> Context | None:
        if self._is_root:
            return Context()
        return None if trace.get_current_span().get_span_context().is_valid else _W3C.extract(carried_trace())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End, with the error if there is one."""
        if kind is not None:
            self.note(kind.__qualname__)
        super().__exit__(kind, error, traceback)


def _facts(operation: str, kind: str, queue: str) -> dict[str, str | int]:
    return {
        names.SYSTEM: _SYSTEM,
        names.OPERATION: operation,
        names.OPERATION_TYPE: kind,
        names.DESTINATION: queue,
    }


def _current_carrier() -> Carrier:
    carrier: dict[str, str] = {}
    _W3C.inject(carrier)
    return read_trace(carrier)


_failed: set[tuple[str, type[Exception]]] = set()
"""What has been logged."""


class _contained:  # noqa: N801 - reads as a word of a with statement
    """Log an error of the tracer, or of what it calls, the first time; go on without."""

    def __init__(self, act: str) -> None:
        self._act = act

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if not isinstance(error, Exception):
            return False
        _log_once(self._act, error)
        return True


def _log_once(act: str, error: Exception) -> None:
    if (act, type(error)) not in _failed:
        _failed.add((act, type(error)))
        _log.warning("the tracer cannot %s; jobs go on without", act, exc_info=error)
