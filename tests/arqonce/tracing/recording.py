"""What tests of traces share: the spans that were recorded, and the contexts of messages."""

from typing import Any, ClassVar

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext

from arqonce import Payload, Result
from arqonce.wire.codec import decode

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
"""The example of W3C's specification."""

TRACE = {"traceparent": PARENT, "tracestate": "rojo=00f067aa0ba902b7"}


SECRET = "jane@example.org"  # noqa: S105 - what no span may say


class Work(Payload[Result]):
    """Do as the test says."""

    job_name: ClassVar[str] = "work"
    email: str = SECRET


class Recorded:
    """Spans in the order in which they ended."""

    def __init__(self, exporter: InMemorySpanExporter) -> None:
        self._exporter = exporter

    @property
    def spans(self) -> list[ReadableSpan]:
        """All of them."""
        return list(self._exporter.get_finished_spans())

    @property
    def names(self) -> list[str]:
        """Their names."""
        return [span.name for span in self.spans]

    def named(self, name: str) -> list[ReadableSpan]:
        """Return those of a name."""
        return [span for span in self.spans if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        """Return the only one of a name."""
        (span,) = self.named(name)
        return span


def header(context: SpanContext | None) -> str:
    """Return a span's context as a header has it."""
    if context is None:
        return "none"
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def links(span: ReadableSpan) -> list[str]:
    """Return what a span is linked to."""
    return [header(link.context) for link in span.links]


def facts(span: ReadableSpan) -> dict[str, Any]:
    """Return a span's attributes, by the last part of their names."""
    return {
        name.removeprefix("messaging.").removeprefix("arqonce.job."): at for name, at in (span.attributes or {}).items()
    }


def context_of(message: bytes) -> Any:  # noqa: ANN401 - JSON
    """Return the trace context of a message."""
    return decode(message).get("tc")
