"""A job as it was enqueued or promised in a test, before it has run. Needs no database."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeVar

from arqonce.payloads import AnyPayload
from arqonce.wire.arguments import read_payload
from arqonce.wire.codec import decode

PayloadT = TypeVar("PayloadT", bound=AnyPayload)


@dataclass(frozen=True)
class RecordedJob:
    """A job as it would be stored in Redis."""

    job_id: str
    """The key, if the producer chose one."""

    name: str
    """The wire name."""

    message: bytes = field(repr=False)
    due: datetime
    queue: str
    is_promised: bool = False
    """Whether it was enqueued through the outbox."""

    request_hash: bytes | None = field(default=None, repr=False)
    """Distinguishes a promise from another one with the same key."""

    @classmethod
    def of(
        cls, job_id: str, message: bytes, *, due_ms: int, queue: str, request_hash: bytes | None = None
    ) -> "RecordedJob":
        """Build a job from what a client sends. A promise has a ``request_hash``."""
        due = datetime.fromtimestamp(due_ms / 1000, UTC)
        is_promised = request_hash is not None
        return cls(job_id, decode(message)["f"], message, due, queue, is_promised, request_hash)

    def __str__(self) -> str:
        """Format the job as a call: its name and arguments."""
        call = decode(self.message)
        fields = [*map(repr, call["a"]), *(f"{name}={value!r}" for name, value in call["k"].items())]
        return f"{self.name}({', '.join(fields)})"

    def read(self, payload: type[PayloadT]) -> PayloadT:
        """Return the payload, decoded and validated as in a worker."""
        call = decode(self.message)
        return read_payload(payload, call["a"], call["k"])

    def is_of(self, payload: type[AnyPayload], fields: Mapping[str, object]) -> bool:
        """Return whether the job is of this kind and its fields have these values."""
        if self.name != payload.job_name:
            return False
        found = self.read(payload)
        return all(getattr(found, name) == value for name, value in fields.items())


def require_fields(payload: type[AnyPayload], fields: Mapping[str, object]) -> None:
    """Check that the payload has these fields.

    Raises:
        TypeError: it has not; the text names those that it has.
    """
    if unknown := sorted(fields.keys() - payload.model_fields.keys()):
        known = ", ".join(payload.model_fields)
        raise TypeError(f"{payload.__name__} has no field {', '.join(unknown)}: it has {known}")


def written(payload: type[AnyPayload], fields: Mapping[str, object]) -> str:
    """Format a kind of job with values of fields as a call."""
    return f"{payload.__name__}({', '.join(f'{name}={value!r}' for name, value in fields.items())})"
