"""Limits of a kind of jobs: how many run at once, how many start in a time; of the kind, or for each value of a key.

Describes limits, and which permits a job needs. They are counted in Redis (``engine.scripts.limits``); knows no server.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Any

import structlog

from arqonce.payloads import AnyPayload
from arqonce.wire.keys import to_ms
from arqonce.wire.request import json_in_order
from arqonce.work import Permit

_MOST = 10_000
"""Largest number of a limit: so many entries are kept in Redis for each key."""

_SHORTEST, _LONGEST = timedelta(milliseconds=100), timedelta(days=1)
"""Bounds of ``per``: round trips take some milliseconds; and so long a start is remembered."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.limits")


@dataclass(frozen=True, kw_only=True)
class Limit:
    """At most ``concurrency`` jobs of the kind at once, or at most ``rate`` starts in any ``per``.

    ``Limit(concurrency=3)``; ``Limit(rate=100, per=timedelta(minutes=1))``. With ``by``, the name of a field of the
    payload or a function of the payload, there is one for each of its values: ``Limit(concurrency=3, by="tenant")``.

    **At once** are jobs of all workers, each job of a batch. A job counts from before its attempt until its end is
    recorded, or until its lease ends: so the permit of a killed worker's job comes back with the job. A worker that was
    stopped for longer than its lease is not counted any more, although what it runs may go on.

    **Starts** are attempts, repeated ones included, by the clock of the Redis server. No closed interval as long as
    ``per`` has more than ``rate``, wherever it begins: the first start may be repeated when ``per`` has passed.

    A job that may not start waits, uncounted as an attempt, and starts in the order in which jobs were due. It does not
    hold up others. With several limits it needs a permit of each, and waits for one after the other.

    Raises:
        TypeError: a value is invalid; the text says which, and the cure.
    """

    concurrency: int | None = None
    """From 1 to 10,000."""

    rate: int | None = None
    """From 1 to 10,000, in the time ``per``."""

    per: timedelta | None = None
    """From 100 ms to a day, to the millisecond."""

    by: str | Callable[[Any], object] | None = None
    """``None`` is one limit for all jobs of the kind. The value may be anything that JSON can carry, ``None`` included,
    of any length: Redis holds its hash. Jobs for which a function raises an error share one key."""

    def __post_init__(self) -> None:
        """Validate the values now, not at the first job."""
        if (self.concurrency is None) == (self.rate is None) or (self.rate is None) != (self.per is None):
            raise TypeError(
                "a Limit is either Limit(concurrency=3) or Limit(rate=100, per=timedelta(minutes=1)); "
                "give a kind several limits in a list"
            )
        if not (isinstance(self.most, int) and not isinstance(self.most, bool) and 1 <= self.most <= _MOST):
            raise TypeError(f"concurrency and rate of a Limit are whole numbers from 1 to {_MOST:,}")
        if self.per is not None and not (isinstance(self.per, timedelta) and _SHORTEST <= self.per <= _LONGEST):
            raise TypeError("per of a Limit is a timedelta from 100 ms to a day, such as timedelta(minutes=1)")
        if not (self.by is None or isinstance(self.by, str) or callable(self.by)):
            raise TypeError("by of a Limit is the name of a field of the payload, or a function of the payload")

    def __str__(self) -> str:
        """Return it for people, such as ``3 at once by tenant``."""
        by = "" if self.by is None else f" by {self.by if isinstance(self.by, str) else _name_of(self.by)}"
        return f"{self.most:,} at once{by}" if self.per is None else f"{self.most:,} in {self.per}{by}"

    @property
    def most(self) -> int:
        """The number of the limit."""
        return self.concurrency if self.concurrency is not None else self.rate or 0

    @property
    def per_ms(self) -> int:
        """The time of a rate in ms; 0 for jobs at once."""
        return 0 if self.per is None else to_ms(self.per)

    def id_of(self, job_name: str) -> str:
        """Return the name of the limit in Redis. Another number is the same limit, changed; all else is another."""
        by = self.by if self.by is None or isinstance(self.by, str) else f"{_name_of(self.by)}()"
        return _digest(f"{job_name}\n{by}\n{self.per_ms}")

    def permit(self, payload: AnyPayload) -> Permit:
        """Return what a job with this payload needs."""
        limit = self.id_of(payload.job_name)
        if self.by is None:
            return Permit(f"{limit}:", self.most, self.per_ms)
        return Permit(f"{limit}:{hashlib.sha256(self._value_of(payload)).hexdigest()[:32]}", self.most, self.per_ms)

    def _value_of(self, payload: AnyPayload) -> bytes:
        try:
            return json_in_order(getattr(payload, self.by) if isinstance(self.by, str) else self.by(payload))  # type: ignore[misc] # checked by id_of
        except Exception as error:  # noqa: BLE001 - code of the application
            _log.warning(
                "a limit's function failed: the job shares the permits of all for which it fails",
                job_name=payload.job_name,
                error=type(error).__name__,
            )
            return b"\xff"  # no JSON


def _name_of(function: Callable[[Any], object]) -> str:
    return str(getattr(function, "__qualname__", type(function).__qualname__))


@lru_cache(maxsize=1000)
def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def require_limits(payload: type[AnyPayload], limits: Sequence[Limit]) -> tuple[Limit, ...]:
    """Return the limits of a kind of jobs.

    Raises:
        TypeError: one is not a ``Limit``, or its ``by`` names no field of the payload; or two limit the same thing.
    """
    job = f"the job {payload.job_name}: "
    if isinstance(limits, str | Limit) or not all(isinstance(limit, Limit) for limit in limits):
        raise TypeError(f"{job}limits is a list of Limit(...), such as [Limit(concurrency=3)]")
    known: set[str] = set()
    for limit in limits:
        if isinstance(limit.by, str) and limit.by not in payload.model_fields:
            fields = ", ".join(payload.model_fields) or "none"
            raise TypeError(f"{job}by={limit.by!r} of a Limit is no field of {payload.__qualname__}; it has: {fields}")
        if (name := limit.id_of(payload.job_name)) in known:
            raise TypeError(f"{job}two limits are of the same thing, {_said(limit)}: give one, or name the functions")
        known.add(name)
    return tuple(limits)


def _said(limit: Limit) -> str:
    what = "concurrency" if limit.per is None else f"the rate in {limit.per}"
    by = limit.by if limit.by is None or isinstance(limit.by, str) else _name_of(limit.by)
    return what if by is None else f"{what} by {by}"


def in_force(kinds: Iterator[tuple[str, Sequence[Limit]]]) -> Mapping[str, str]:
    """Return what Redis is to know of these kinds' limits: number and time of each, by its name in Redis."""
    return {limit.id_of(job_name): f"{limit.most}:{limit.per_ms}" for job_name, limits in kinds for limit in limits}
