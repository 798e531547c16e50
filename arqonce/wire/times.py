"""Reads the times that a producer gives a job: when it is due, when it expires, how long it is unique.

All results are in ms since 1970 or ms, arq's units.
"""

from datetime import UTC, datetime, timedelta

from arqonce.failures import InvalidMessageError
from arqonce.wire.keys import LATEST_MS, to_ms, type_of


def due_ms(now: int, delay: timedelta | None, at: datetime | None) -> int:
    """Return when a job is due, in ms since 1970: now, after ``delay``, or ``at`` a datetime with a time zone.

    Raises:
        InvalidMessageError: the time is invalid; the text gives the reason.
    """
    if delay is not None and at is not None:
        raise InvalidMessageError("give delay or at, not both")
    if not isinstance(delay, timedelta | None):
        raise InvalidMessageError(f"delay must be a timedelta, such as timedelta(seconds=5); this is {type_of(delay)}")
    if not isinstance(at, datetime | None):
        raise InvalidMessageError(f"at must be a datetime with a time zone; this is {type_of(at)}")
    if at is not None:
        return _in_range("the job is due", max(0, _timestamp_ms("at", at)))
    if delay is None:
        return now
    if delay < timedelta(0):
        raise InvalidMessageError("delay is negative")
    return _in_range("the job is due", now + to_ms(delay))


def expiry_ms(now: int, due: int, expires: timedelta | datetime | None) -> int | None:
    """Return when a job expires, in ms since 1970: ``expires`` from now, or at that time; ``None`` if it does not.

    Raises:
        InvalidMessageError: the time is invalid, has passed, or comes before the job is due.
    """
    if not isinstance(expires, datetime | timedelta | None):
        raise InvalidMessageError(
            f"expires must be a timedelta from now, or a datetime with a time zone; this is {type_of(expires)}"
        )
    if expires is None:
        return None
    expiry = _timestamp_ms("expires", expires) if isinstance(expires, datetime) else now + to_ms(expires)
    if expiry <= now:
        raise InvalidMessageError("expires has passed: the job would never run")
    if expiry <= due:
        raise InvalidMessageError("the job would expire before it is due: expires counts from now, as delay does")
    return _in_range("the job expires", expiry)


def window_ms(now: int, unique_for: timedelta | None, *, has_key: bool) -> int | None:
    """Return how long a request is unique, in ms; ``None`` if it need not be.

    Raises:
        InvalidMessageError: the time is invalid, or the job has a key as well.
    """
    if not isinstance(unique_for, timedelta | None):
        raise InvalidMessageError(
            f"unique_for must be a timedelta, such as timedelta(minutes=10); this is {type_of(unique_for)}"
        )
    if unique_for is None:
        return None
    if has_key:
        raise InvalidMessageError("give key or unique_for, not both: a key is unique for as long as receipts are kept")
    if unique_for < timedelta(milliseconds=1):
        raise InvalidMessageError("unique_for must be 1 ms or longer")
    _in_range("the job is unique until", now + to_ms(unique_for), preposition="")
    return to_ms(unique_for)


def _in_range(what: str, time_ms: int, *, preposition: str = " after") -> int:
    if time_ms > LATEST_MS:
        raise InvalidMessageError(f"{what}{preposition} the year 9999")
    return time_ms


def _timestamp_ms(name: str, at: datetime) -> int:
    if at.tzinfo is None:
        raise InvalidMessageError(f"{name} has no time zone: give datetime.now(UTC) or another aware time")
    try:
        return round(at.astimezone(UTC).timestamp() * 1000)
    except OverflowError:
        raise InvalidMessageError(f"{name} is out of the range of dates") from None
