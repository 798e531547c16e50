"""A job as it came from the queue. Knows neither arq nor Redis."""

from typing import Any, NamedTuple

from arqonce.spec import JobSpec
from arqonce.wire.keys import now_ms
from arqonce.wire.trace import NO_TRACE, Carrier

AnySpec = JobSpec[Any, Any]


EXPIRED = "no worker had started the job when it expired: it has not run"
"""Why a job that has expired failed."""


class Delivery(NamedTuple):
    """A job as it came from the queue. ``attempt`` counts from 1 and includes attempts that ended in a crash."""

    job_id: str
    attempt: int
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    was_left: bool | None = None
    """Whether the previous attempt's worker abandoned it, so that it never ended; ``None`` if unknown."""

    excused: int = 0
    """How many crashes do not count towards the limit, because another job of the same worker may have caused them."""

    waited_ms: int | None = None
    """How long it was due before this attempt began; ``None`` if unknown."""

    queue: str | None = None
    """The queue from which it came; ``None`` is the dispatcher's."""

    expires_ms: int | None = None
    """When the job expires unless an attempt has begun, in ms since 1970 by this machine's clock."""

    parent: str | None = None
    """The id of the job whose handler promised this one."""

    enqueued_ms: int = 0
    """When its producer has enqueued it, in ms since 1970."""

    trace: Carrier = NO_TRACE
    """The trace context of its message."""

    @property
    def has_expired(self) -> bool:
        """Whether the job must not start any more. Uncounted attempts, as in an outage, have not started it."""
        return self.expires_ms is not None and self.attempt == 1 and now_ms() >= self.expires_ms

    @property
    def waited(self) -> dict[str, int]:
        """``waited_ms`` for a line of the log; nothing if it is unknown."""
        return {} if self.waited_ms is None else {"waited_ms": self.waited_ms}

    @property
    def counted(self) -> int:
        """The number of this attempt, without excused ones."""
        return self.attempt - self.excused
