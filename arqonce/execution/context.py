"""Builds the context of a job for handlers that ask for it."""

from datetime import UTC, datetime, timedelta

from arqonce.execution.delivery import AnySpec, Delivery
from arqonce.job import JobContext
from arqonce.resources import Resources


def build_context(
    spec: AnySpec, delivery: Delivery, *, queue: str, resources: Resources, lasts: timedelta
) -> JobContext:
    """Return the context of an attempt that begins now and may last so long."""
    return JobContext(
        id=delivery.job_id,
        name=spec.name,
        attempt=delivery.counted,
        max_attempts=spec.max_attempts,
        queue=queue,
        enqueued_at=datetime.fromtimestamp(delivery.enqueued_ms / 1000, UTC),
        deadline=datetime.now(UTC) + lasts,
        trace=delivery.trace,
        resources=resources,
    )
