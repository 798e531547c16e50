"""A job as it came from the queue. Knows neither arq nor Redis."""

from typing import Any, NamedTuple

from arqonce.spec import JobSpec

AnySpec = JobSpec[Any, Any]


class Delivery(NamedTuple):
    """A job as it came from the queue: ``attempt`` counts from 1, crashes of earlier workers included."""

    job_id: str
    attempt: int
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    was_left: bool | None = None
    """Whether the attempt before this one is known never to have ended; ``None`` if nobody knows."""

    excused: int = 0
    """How many crashes do not count towards the limit: another job of the same worker may have been the cause."""

    @property
    def counted(self) -> int:
        """The attempt's number among those that count."""
        return self.attempt - self.excused
