"""Why a job failed, in a form that every language can read, and back as typed errors.

    JobError
    ├── EnqueueError              the job was not accepted
    │   ├── InvalidMessageError       ... because it is malformed or too large
    │   ├── KeyConflictError          ... because its key belongs to another request
    │   └── QueueUnavailableError     ... because Redis cannot be reached or refuses us
    ├── ResultMissingError        there is no result, and none will come
    ├── InvalidResultError        the result is that of another kind of job
    └── JobFailedError            the job ran, or was refused by the worker; ``kind`` says why
        ├── MalformedMessageError ... UnknownJobError ... InvalidPayloadError ...

On the wire a failure is ``{"type": kind, "message": text}``. The texts of our own failures never repeat a person's
data; a foreign exception goes with the beginning of its own text, to its producer and nobody else.
"""

from asyncio import CancelledError
from typing import Any, ClassVar, Self


class JobError(Exception):
    """Anything that goes wrong with a job, as its producer sees it."""


class EnqueueError(JobError):
    """The job was not accepted; nothing is queued."""


class InvalidMessageError(EnqueueError, ValueError):
    """The message cannot be sent or read; the text says what is wrong with it."""


class KeyConflictError(EnqueueError, ValueError):
    """The key was used before, for another request: that one counts."""


class QueueUnavailableError(EnqueueError, ConnectionError):
    """Redis cannot be reached, or refuses us."""


class ResultMissingError(JobError, LookupError):
    """The job is neither queued nor answered: never enqueued, or its result has expired."""


class InvalidResultError(JobError, ValueError):
    """The result is of another kind of job than asked for: two kinds were given the same key."""


class JobFailedError(JobError):
    """The job failed for good. Subclasses name the failures that a producer may want to tell apart."""

    kind: ClassVar[str] = "job_failed"
    """The ``type`` on the wire."""

    _kinds: ClassVar[dict[str, type["JobFailedError"]]] = {}

    def __new__(cls, *args: object, **_options: object) -> Self:
        """Have what is told of a failure also where a subclass has a constructor of its own that calls no other."""
        failure = super().__new__(cls, *args)
        vars(failure).update(message=args[0] if args and isinstance(args[0], str) else "", type=cls.kind)
        return failure

    def __init__(self, message: str, *, kind: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.type = kind or self.kind

    def __init_subclass__(cls) -> None:
        """Make the subclass known to ``failure_from_wire``."""
        cls._kinds[cls.kind] = cls

    def __str__(self) -> str:
        """Show the type as well: it is what a reader of a log searches for."""
        return f"{self.type}: {self.message}"

    @classmethod
    def named(cls, kind: str) -> type["JobFailedError"]:
        """Return the class of failures with this wire type, the base class if it is not known here."""
        return cls._kinds.get(kind, JobFailedError)

    @classmethod
    def told(cls, kind: str, message: str) -> "JobFailedError":
        """Return the failure with this wire type and text, without the constructor of its class: it may take others."""
        failure = JobFailedError.__new__(cls.named(kind), message)
        JobFailedError.__init__(failure, message, kind=kind)
        return failure


class MalformedMessageError(JobFailedError):
    """The worker could not read the message."""

    kind = "malformed_message"


class MessageMissingError(JobFailedError):
    """The job was queued without its message: it was never written, had expired, or somebody has deleted it."""

    kind = "message_missing"


class UnknownJobError(JobFailedError):
    """The worker has no job of this name."""

    kind = "unknown_job"


class InvalidPayloadError(JobFailedError):
    """The arguments do not fit the job: unknown or missing field, wrong type, out of range."""

    kind = "invalid_payload"


class RequestConflictError(JobFailedError):
    """Another job with this id, but with other arguments, has taken effect: a key was used for two requests."""

    kind = "request_conflict"


class PromiseExpiredError(JobFailedError):
    """The job was promised so long ago that, had it taken effect, nobody would remember: it must not run any more."""

    kind = "promise_expired"


class ConstraintViolatedError(JobFailedError):
    """The database refused the data; the text names the constraint."""

    kind = "constraint_violated"


class DatabaseFailedError(JobFailedError):
    """The database failed on each attempt; the text names the SQLSTATE where there is one."""

    kind = "database_failed"


class DeadlineExceededError(JobFailedError):
    """The job took longer than its deadline on each attempt."""

    kind = "deadline_exceeded"


class JobAbortedError(JobFailedError):
    """Somebody has aborted the job before it took effect."""

    kind = "aborted"


class AttemptsExhaustedError(JobFailedError):
    """The job was started as often as it may, and the last attempt never ended: its worker died or stood still."""

    kind = "attempts_exhausted"


def failure_to_wire(error: BaseException) -> dict[str, str]:
    """Describe a failure for any language. Foreign exceptions go by the name of their class."""
    if isinstance(error, JobFailedError):
        return {"type": text_of(error.type, _TYPE_LENGTH), "message": text_of(error.message, _OWN_MESSAGE_LENGTH)}
    kind = type(error).__name__
    if kind == CancelledError.__name__ and not isinstance(error, CancelledError):
        kind = f"{type(error).__module__}.{kind}"  # that of futures of threads: nobody has aborted the job
    return {"type": text_of(kind, _TYPE_LENGTH), "message": text_of(error, _MESSAGE_LENGTH)}


def text_of(value: object, longest: int) -> str:
    """Return the beginning of a value's text: also of an exception whose own ``__str__`` raises, whatever that is."""
    try:
        return storable(str(value)[:longest])
    except BaseException:  # noqa: BLE001 - somebody else's code; a failure that cannot be told would never end
        return ""


def storable(text: str) -> str:
    """Return the text without what PostgreSQL or UTF-8 cannot hold: a field's name may be anything in JSON.

    A dead letter that cannot be written would deliver its job again for ever.
    """
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()


_MESSAGE_LENGTH = 500
"""Longest text of a foreign exception on the wire, in characters."""

_OWN_MESSAGE_LENGTH = 10_000
"""Longest text of a failure that a handler has chosen: it is kept with the receipt, and sent to the producer."""

_TYPE_LENGTH = 200
"""Longest name of a failure."""


def failure_from_wire(failure: Any) -> JobFailedError:  # noqa: ANN401 - whatever stood on the wire
    """Make the typed error of a failure; of anything else too, so that no result is unreadable."""
    if not isinstance(failure, dict):
        return JobFailedError(str(failure))
    kind, message = str(failure.get("type", JobFailedError.kind)), str(failure.get("message", ""))
    return JobFailedError.told(kind, message)
