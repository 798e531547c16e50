"""What a handler can know of its own job, and how it asks for another attempt. Knows no server."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Self, TypeVar
from uuid import UUID, uuid5

from arqonce.resources import Opened, Resource, Resources

T = TypeVar("T")

_NAMESPACE = UUID("9b1f5a3e-6f0b-5a0f-9a43-0d5f2c8f7f11")
"""Of the idempotency keys. Never change it: a job that is repeated by another version must have the same key."""


_LONGEST_DELAY = timedelta(days=1)


class RetryAfter(Exception):  # noqa: N818 - a wish, not an error
    """Raised by a handler, or by the work of ``Phases``: run the job again after ``delay``, which is at most a day.

    What the attempt has written is rolled back. With ``counts=False`` it is no step towards ``max_attempts``, until the
    job is 7 days old, counted from when it was enqueued; such a job is not run again within a second. A job that has no
    attempts left is dead, with ``reason``, which is also logged: it must contain no person's data.
    """

    def __init__(self, delay: timedelta, *, counts: bool = True, reason: str = "") -> None:
        """Check the delay.

        Raises:
            TypeError: it is no timedelta.
            ValueError: it is negative, or longer than a day.
        """
        if not isinstance(delay, timedelta):
            raise TypeError(f"RetryAfter takes a timedelta, such as timedelta(seconds=30); this is {delay!r:.100}")
        if not timedelta(0) <= delay <= _LONGEST_DELAY:
            raise ValueError(f"RetryAfter takes a delay from 0 to 1 day; this is {delay}")
        super().__init__(f"run again in {delay}" + (f": {reason}" if reason else ""))
        self.delay = delay
        self.counts = counts
        self.reason = reason

    @classmethod
    def from_header(
        cls, value: str | None, *, default: timedelta = timedelta(seconds=30), counts: bool = True, reason: str = ""
    ) -> Self:
        """Read the delay from HTTP's header ``Retry-After``: a number of seconds, or a date, by this machine's clock.

        At most a day, however long it says; ``default`` if there is none or it is unreadable.
        """
        delay = _delay_of(value or "")
        bounded = default if delay is None else min(max(delay, timedelta(0)), _LONGEST_DELAY)
        return cls(bounded, counts=counts, reason=reason)


def _delay_of(header: str) -> timedelta | None:
    try:
        if header.strip().isdecimal():
            return timedelta(seconds=min(int(header), _LONGEST_DELAY.total_seconds()))
        due = parsedate_to_datetime(header)
    except (ValueError, OverflowError):
        return None
    return due.replace(tzinfo=due.tzinfo or UTC) - datetime.now(UTC)


@dataclass(frozen=True, kw_only=True)
class JobContext:
    """The running job, as a handler sees it that takes it as its last parameter: ``(session, payload, job)``."""

    id: str
    """The job's id, which is its producer's idempotency key if there was one."""

    name: str
    """Its name on the wire, under which it was queued."""

    attempt: int
    """The number of this attempt, from 1. Attempts that a deploy or an outage broke off do not count."""

    max_attempts: int
    """Most attempts of the job: ``JobSpec(max_attempts=)``."""

    queue: str
    """The queue from which it came."""

    enqueued_at: datetime
    """When its producer enqueued it, by the producer's clock. In UTC."""

    deadline: datetime
    """When this attempt is cancelled, by the worker's clock. In UTC."""

    trace: Mapping[str, str] = field(default_factory=dict)
    """The producer's trace context, as headers of HTTP: ``traceparent`` and ``tracestate``. Empty without one."""

    resources: Resources = field(default_factory=Opened, repr=False)
    """What ``job[RESOURCE]`` returns."""

    @property
    def idempotency_key(self) -> str:
        """A UUID for requests to other services: the same in all attempts of this job, of no other job.

        It is derived from name and id. So it stays the same when a dead letter is retried, too.
        """
        return str(uuid5(_NAMESPACE, f"{self.name}\0{self.id}"))

    def __getitem__(self, resource: Resource[T]) -> T:
        """Return the resource that this worker has opened.

        Raises:
            MissingResourceError: no registry of the worker names it.
        """
        found: T = self.resources[resource]
        return found
