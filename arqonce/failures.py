"""Converts failures of jobs to a language-neutral form and back to typed errors.

    JobError
    ├── EnqueueError              the job was not accepted; nothing is queued
    │   ├── InvalidMessageError       it is malformed; MessageTooLargeError: it is too large
    │   └── KeyConflictError          its key belongs to another request
    ├── QueueUnavailableError     Redis cannot be reached or refuses the client; the job may or may not be queued
    ├── ResultMissingError        there is no result, and none will come
    ├── InvalidResultError        the result belongs to another kind of job
    ├── ConflictError             a key was used for two requests: KeyConflictError and RequestConflictError
    └── JobFailedError            the job ran, or the worker refused it; ``code`` says why
        ├── RequestConflictError      its key belongs to another request; detected by the worker
        └── MalformedMessageError ... UnknownJobError ... InvalidPayloadError ...

On the wire a failure is ``{"type": code, "message": text}``. The library's own failure texts never repeat
personal data. Any other exception is sent with the beginning of its own text, only to the job's producer.
"""

from asyncio import CancelledError
from itertools import takewhile
from typing import Any, ClassVar, Self


class JobError(Exception):
    """Base class of all errors that a producer can receive."""


class EnqueueError(JobError):
    """The job was not accepted; nothing is queued."""


class ConflictError(JobError):
    """A key was used for two requests: the first one counts."""


class InvalidMessageError(EnqueueError, ValueError):
    """The message cannot be sent or read. The text gives the reason."""


class MessageTooLargeError(InvalidMessageError):
    """The message has more bytes than any may have. The text names the cure."""


class KeyConflictError(EnqueueError, ConflictError, ValueError):
    """The key was used before, for another request, which stays in force. Nothing is queued."""


class QueueUnavailableError(JobError, ConnectionError):
    """Redis cannot be reached, or refuses the client. The call may have taken effect: with a key, repeat it."""


class ResultMissingError(JobError, LookupError):
    """The job is not queued and has no result: it was never enqueued, or its result has expired."""


class InvalidResultError(JobError, ValueError):
    """The result belongs to another kind of job: two kinds were enqueued with the same key."""


class JobFailedError(JobError):
    """The job failed for good. Subclasses name the failures that a producer may want to tell apart.

    A subclass has a ``code`` of its own, which must not be that of a failure of this library. Two packages may use the
    same code: a result is raised as the class of the package that its payload comes from.
    """

    code: str = "job_failed"
    """The reason in one word: ``type`` on the wire. ``JobFailedError(text, code="...")`` needs no subclass for it."""

    is_fault: ClassVar[bool] = False
    """Whether the fault lies with the system, not with the request. Operators are alerted."""

    is_dead_letter: ClassVar[bool] = False
    """Whether the job becomes a dead letter, for a person to look at: no handler chose this failure."""

    _by_code: ClassVar[dict[str, dict[str, type["JobFailedError"]]]] = {}
    """The subclasses by code and by module, in the order of their definition."""

    _reserved: ClassVar[set[str]] = {"job_failed"}
    """The codes of this module's classes. No other class may use them."""

    def __new__(cls, *args: object, **_options: object) -> Self:
        """Set ``message`` even if a subclass's constructor does not call the base constructor."""
        failure = super().__new__(cls, *args)
        failure.message = args[0] if args and isinstance(args[0], str) else ""
        return failure

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code

    def __init_subclass__(cls) -> None:
        """Register the subclass for ``failure_from_wire``, unless it inherits its code.

        Raises:
            TypeError: the code is invalid, or the library uses it.
        """
        code: object = vars(cls).get("code")
        if code is None:
            return
        if not isinstance(code, str) or not code:
            raise TypeError(f'{cls.__qualname__}.code must be a word, such as code = "email_taken"')
        if cls.__module__ == __name__:
            cls._reserved.add(code)
        elif code in cls._reserved:
            raise TypeError(f"{cls.__qualname__}.code is {code!r}, which arqonce uses itself: choose another word")
        known = cls._by_code.setdefault(code, {})
        known.pop(cls.__module__, None)
        known[cls.__module__] = cls

    def __str__(self) -> str:
        """Include the code, which readers of logs search for."""
        return f"{self.code}: {self.message}"

    @classmethod
    def from_code(cls, code: str, message: str, *, asked_by: type | None = None) -> "JobFailedError":
        """Return a failure of the class with this code, or of the base class if there is none.

        Of several classes, the one whose module shares the most packages with that of ``asked_by`` is used; among
        equals, the last one. Its constructor is not called: its signature may differ.
        """
        known, asked = cls._by_code.get(code, {}), "" if asked_by is None else asked_by.__module__
        nearest = max(reversed(known), key=lambda module: _shared_packages(module, asked), default=None)
        failure = JobFailedError.__new__(JobFailedError if nearest is None else known[nearest], message)
        JobFailedError.__init__(failure, message, code=code)
        return failure


def _shared_packages(module: str, other: str) -> int:
    """Count the packages that two modules share, from the top."""
    pairs = zip(module.split("."), other.split("."), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


class MalformedMessageError(JobFailedError):
    """The worker could not read the message."""

    code = "malformed_message"
    is_dead_letter = True


class MessageMissingError(JobFailedError):
    """The job was queued without its message: it was never written, had expired, or somebody has deleted it."""

    code = "message_missing"
    is_dead_letter = True


class UnknownJobError(JobFailedError):
    """The worker has no job of this name."""

    code = "unknown_job"
    is_dead_letter = True


class InvalidPayloadError(JobFailedError):
    """The arguments do not fit the job: unknown or missing field, wrong type, out of range."""

    code = "invalid_payload"
    is_dead_letter = True


class RequestConflictError(JobFailedError, ConflictError):
    """Another job with this id, but with other arguments, has taken effect: a key was used for two requests."""

    code = "request_conflict"
    is_dead_letter = True


class PromiseExpiredError(JobFailedError):
    """The job was promised so long ago that, had it taken effect, nobody would remember: it must not run any more."""

    code = "promise_expired"
    is_dead_letter = True


class JobExpiredError(JobFailedError):
    """No worker had started the job when it expired (``expires``): it has not run, and will not."""

    code = "expired"


class ConstraintViolatedError(JobFailedError):
    """The database refused the data; the text names the constraint."""

    code = "constraint_violated"
    is_dead_letter = True


class DatabaseFailedError(JobFailedError):
    """The database failed on each attempt; the text names the SQLSTATE where there is one."""

    code = "database_failed"
    is_dead_letter = True
    is_fault = True


class DeadlineExceededError(JobFailedError):
    """The job took longer than its deadline on each attempt."""

    code = "deadline_exceeded"
    is_dead_letter = True
    is_fault = True


class JobAbortedError(JobFailedError):
    """Somebody has aborted the job before it took effect."""

    code = "aborted"


class AttemptsExhaustedError(JobFailedError):
    """The job was started as often as it may, and the last attempt never ended, or asked for another one.

    It never ends if its worker dies or stands still. It asks by ``RetryAfter``.
    """

    code = "attempts_exhausted"
    is_dead_letter = True
    is_fault = True


def is_own_code(code: str) -> bool:
    """Return whether a failure of this library has this code: its text never has personal data.

    A handler may raise ``JobFailedError`` itself: then the text is the handler's.
    """
    return code in JobFailedError._reserved and code != JobFailedError.code  # noqa: SLF001 - of this module


def failure_to_wire(error: BaseException) -> dict[str, str]:
    """Return the language-neutral form of a failure. Other exceptions have the name of their class as code."""
    if isinstance(error, CancelledError):
        error = JobAbortedError("somebody has aborted the job")
    if isinstance(error, JobFailedError):
        return {"type": text_of(error.code, _CODE_LENGTH), "message": text_of(error.message, _OWN_MESSAGE_LENGTH)}
    code = type(error).__name__
    if code == CancelledError.__name__:
        code = f"{type(error).__module__}.{code}"  # concurrent.futures' CancelledError: the job was not aborted
    return {"type": text_of(code, _CODE_LENGTH), "message": text_of(error, _MESSAGE_LENGTH)}


def code_of(error: BaseException) -> str:
    """Return the reason for a failure in one word, for metrics: never part of a text."""
    if isinstance(error, CancelledError):
        return JobAbortedError.code
    return text_of(error.code if isinstance(error, JobFailedError) else type(error).__name__, _CODE_LENGTH)


def text_of(value: object, longest: int) -> str:
    """Return the first ``longest`` characters of ``str(value)``. Never fails, even if ``__str__`` raises."""
    try:
        return storable(str(value)[:longest])
    except BaseException:  # noqa: BLE001 - foreign code; a job whose failure cannot be recorded would never end
        return ""


def storable(text: str) -> str:
    """Return the text without characters that PostgreSQL or UTF-8 cannot store; a JSON field name may contain any.

    If a dead letter could not be written, its job would be delivered again for ever.
    """
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()


_MESSAGE_LENGTH = 500
"""Longest text of an exception that is no ``JobFailedError`` on the wire, in characters."""

_OWN_MESSAGE_LENGTH = 10_000
"""Longest text of a failure that a handler chose, in characters. It is stored with the receipt and sent to the
producer."""

_CODE_LENGTH = 200
"""Longest code of a failure, in characters."""


def failure_from_wire(failure: Any) -> JobFailedError:  # noqa: ANN401 - any JSON value
    """Return the typed error of a failure on the wire. Accepts any value, so that every result can be read."""
    if not isinstance(failure, dict):
        return JobFailedError(str(failure))
    code, message = str(failure.get("type", JobFailedError.code)), str(failure.get("message", ""))
    return JobFailedError.from_code(code, message)
