"""A tracer as a service sets one up, whose spans stay in memory."""

from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.arqonce.tracing.recording import Recorded


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[TracerProvider]:
    """Yield the provider of this process, for as long as the test lasts."""
    provider = TracerProvider(shutdown_on_exit=False)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)  # set_tracer_provider works once
    yield provider
    provider.shutdown()


@pytest.fixture
def recorded(provider: TracerProvider) -> Recorded:
    """Return what this process records."""
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return Recorded(exporter)
