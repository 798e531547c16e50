"""Decides what the failure of an attempt means: another attempt, a refusal, or the end. Queries no server."""

import logging
from datetime import timedelta

import structlog
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from arqonce.backoff import backoff
from arqonce.database.faults import (
    constraint_of,
    cure_of,
    is_of_another,
    is_of_database,
    is_of_driver,
    is_transient,
    sqlstate_of,
)
from arqonce.execution.delivery import AnySpec, Delivery
from arqonce.failures import (
    AttemptsExhaustedError,
    ConstraintViolatedError,
    DatabaseFailedError,
    JobFailedError,
)
from arqonce.job import RetryAfter
from arqonce.resources import MissingResourceError
from arqonce.running import ReadOnlyJobError
from arqonce.wire.keys import now_ms, to_ms


class WrongResultError(TypeError):
    """A handler has returned something other than its payload's result type. A bug, so it is not retried."""


class RetryLater(Exception):  # noqa: N818 - an outcome, not an error
    """The attempt failed; try again after ``delay``. In an outage the attempt does not count (``counts``)."""

    def __init__(self, delay: timedelta, *, counts: bool = True) -> None:
        super().__init__(f"try again in {delay}")
        self.delay = delay
        self.counts = counts


_UNCOUNTED = timedelta(days=7)
"""Age of a job from which each ``RetryAfter`` counts: so long a message may wait in Redis."""

_SHORTEST_UNCOUNTED = timedelta(seconds=1)
"""Shortest delay of a ``RetryAfter`` that does not count."""


def decide(spec: AnySpec, delivery: Delivery, error: Exception) -> Exception:
    """Return what to raise for the failure of an attempt: the error itself, a clearer one, or a retry."""
    if isinstance(error, RetryAfter):
        return _as_asked(spec, delivery, error)
    attempt = delivery.counted
    failure = _as_failure(spec, error)
    if isinstance(failure, JobFailedError) and not failure.is_fault:
        return failure
    is_final = isinstance(error, WrongResultError | ReadOnlyJobError | MissingResourceError) or (
        (isinstance(error, SQLAlchemyError) or is_of_driver(error)) and not is_transient(error)
    )
    if attempt < spec.max_attempts and not is_final:
        return RetryLater(backoff(attempt))
    return failure


def _as_asked(spec: AnySpec, delivery: Delivery, asked: RetryAfter) -> Exception:
    age = timedelta(milliseconds=now_ms() - delivery.enqueued_ms)
    if not asked.counts and age < _UNCOUNTED:
        return RetryLater(max(asked.delay, _SHORTEST_UNCOUNTED), counts=False)
    if delivery.counted < spec.max_attempts:
        return RetryLater(asked.delay)
    limit = "" if asked.counts else f"; the job is {age.days} days old, so this counts"
    return AttemptsExhaustedError(f"{asked.reason or 'the handler asked for another attempt'}, and none is left{limit}")


def _as_failure(spec: AnySpec, error: Exception) -> Exception:
    """Replace a database error by one without its text, which repeats personal data."""
    is_raw = is_of_driver(error)
    may_be = isinstance(error, SQLAlchemyError | ConnectionError | TimeoutError)
    if not is_raw and not (may_be and is_of_database(error)):
        return error
    state, constraint = sqlstate_of(error), constraint_of(error)
    if refusal := spec.refusals.get(constraint or ""):
        return refusal.error(refusal.message)
    is_other = is_of_another(error)
    whose = "a database" if is_raw else "the database"
    if is_other:
        whose = "a database to which the job connects by itself"
    if constraint is not None:
        return ConstraintViolatedError(f"{whose} refuses the data: {constraint} (SQLSTATE {state})")
    if is_raw or isinstance(error, DBAPIError) or is_transient(error):
        cause = f"SQLSTATE {state}" if state else type(getattr(error, "orig", None) or error).__name__
        cure = None if is_other else cure_of(error)
        return DatabaseFailedError(f"{whose} failed: {cause}" + (f": {cure}" if cure else ""))
    return error


def may_start(spec: AnySpec, delivery: Delivery) -> bool:
    """Return whether an attempt is left, or the one before is known to have ended."""
    return delivery.counted <= spec.max_attempts or delivery.was_left is False


def why_exhausted(delivery: Delivery) -> str:
    """Explain used-up attempts by what is known. An expired lease shows that the last worker abandoned the job."""
    message = f"started {delivery.attempt - 1} times"
    if delivery.was_left:
        return f"{message}, and the last attempt never ended: its worker died, stood still or lost Redis"
    return f"{message} without an end"


def log_failure(log: structlog.stdlib.BoundLogger, error: Exception, decided: Exception) -> None:
    """Log the decision: an answer that the handler chose is no trouble, a refusal of the request is a warning."""
    if isinstance(decided, RetryLater) and isinstance(error, RetryAfter):
        log.info("job retried as it asked", delay_ms=to_ms(decided.delay), counts=decided.counts, reason=error.reason)
    elif isinstance(decided, RetryLater):
        log.warning("job retried", delay_ms=to_ms(decided.delay), exc_info=error)
    elif isinstance(decided, JobFailedError) and not decided.is_fault:
        level = logging.WARNING if decided.is_dead_letter else logging.INFO
        log.log(level, "job refused", reason=decided.code)
    else:
        log.error("job failed", exc_info=error)
