"""Describes one schedule of a project: which payload is promised at which slots."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import islice
from typing import Any, Literal, TypeAlias, get_args
from zoneinfo import ZoneInfo

from arqonce.payloads import AnyPayload, Payload
from arqonce.schedules.times import Times
from arqonce.wire.bounds import NAME_RULE, is_name
from arqonce.wire.request import write_job

Overlap: TypeAlias = Literal["skip", "queue"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,99}")
"""A name is typed in commands, and part of a job's id."""

_KEPT = 63
"""Bits of a definition's hash: PostgreSQL's bigint has a sign."""


@dataclass(frozen=True)
class Schedule:
    """A job that is due again and again. One job is promised for each slot, however many workers there are.

    Nothing is promised before its slot. So what is changed, paused or removed has left nothing in the queue that is not
    due. A new schedule, and one whose times have changed, begins with the first slot after its worker has started.

    ``cron`` has five fields or, with seconds before them, six. How slots follow the clock of ``zone`` when it changes
    is the rule of ``Times``. The job's id is ``schedule:NAME:SLOT``, such as ``schedule:report:2026-03-29T01:00:00Z``.
    """

    name: str
    """Unique in the database of the workers."""

    payload: AnyPayload | Callable[[datetime], AnyPayload]
    """What is promised, or a function of the slot that returns it. The slot is a time in ``zone``.

    The function is called in the worker when the slot has come. If it raises, it is called again until it succeeds or
    ``catch_up`` is over.
    """

    cron: str | None = field(default=None, kw_only=True)
    every: timedelta | None = field(default=None, kw_only=True)
    """Interval in whole seconds, counted from ``starts``, or from the beginning of 1970 in UTC."""

    zone: str = field(default="UTC", kw_only=True)
    """Name of the time zone, such as Europe/Berlin."""

    queue: str | None = field(default=None, kw_only=True)
    """Where its jobs run: by default in arq's queue if the worker that promises them serves it, else in its first."""

    catch_up: timedelta = field(default=timedelta(days=1), kw_only=True)
    """How old a slot may be that nobody could promise, because no worker or no database was there.

    It is promised as soon as there is one, the oldest slot first. Older slots are skipped and logged, and so are all
    but the last 1,000 or so. A slot that is less than a minute old is never too old.
    """

    overlap: Overlap = field(default="skip", kw_only=True)
    """What becomes of a slot if the job of an earlier one has not ended: it is skipped, or its job is promised, too."""

    starts: datetime | None = field(default=None, kw_only=True)
    """No slot is earlier. A time with a zone."""

    ends: datetime | None = field(default=None, kw_only=True)
    """All slots are earlier. A time with a zone."""

    def __post_init__(self) -> None:
        """Validate now, not at the first slot.

        Raises:
            ValueError: a value is invalid; the text names the schedule and the cure.
            TypeError: the payload is neither a payload nor a function.
            InvalidMessageError: the payload cannot be sent.
        """
        if not (isinstance(self.name, str) and _NAME.fullmatch(self.name)):
            raise ValueError(
                f"the schedule's name {self.name!r:.60} must be 1 to 100 of A-Z, a-z, 0-9 and ._/-, and begin with a "
                "letter or a digit"
            )
        try:
            _ = self.times
            _require_options(self)
        except ValueError as error:
            raise ValueError(f"the schedule {self.name}: {error}") from None
        if isinstance(self.payload, Payload):
            write_job(self.payload, enqueued_ms=0)
        elif isinstance(self.payload, type) or not callable(self.payload):
            raise TypeError(
                f"the schedule {self.name}: its payload is an instance of a payload, such as MakeReport(), or a "
                "function of the slot: lambda slot: MakeReport(day=slot.date())"
            )

    @cached_property
    def times(self) -> Times:
        """When its slots are."""
        return Times(cron=self.cron, every=self.every, zone=self.zone, starts=self.starts, ends=self.ends)

    @cached_property
    def definition(self) -> int:
        """A hash of all that it says but the payload: workers that agree on it may promise its slots."""
        said = (self.name, self.times, self.queue, self.catch_up, self.overlap)
        return int.from_bytes(hashlib.sha256(repr(said).encode()).digest()[:8]) >> (64 - _KEPT)

    def next_slots(self, *, after: datetime | None = None, count: int = 1) -> list[datetime]:
        """Return the first ``count`` slots later than ``after``, by default than now, as times in the schedule's zone.

        Fewer if it ends before.
        """
        zone = ZoneInfo(self.zone)
        return [slot.astimezone(zone) for slot in islice(self.times.after(after or datetime.now(UTC)), count)]

    def payload_for(self, slot: datetime) -> AnyPayload:
        """Return the payload of the slot, which has a time zone; its function is called.

        Raises:
            TypeError: the function does not return a payload.
        """
        if isinstance(self.payload, Payload):
            return self.payload
        made: Any = self.payload(slot.astimezone(ZoneInfo(self.zone)))
        if not isinstance(made, Payload):
            kind = type(made).__name__
            raise TypeError(f"the schedule {self.name}: its function returns {kind}, which is no payload")
        return made

    def job_id(self, slot: datetime) -> str:
        """Return the id of the slot's job."""
        return f"schedule:{self.name}:{slot.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _require_options(schedule: Schedule) -> None:
    if schedule.overlap not in get_args(Overlap):
        raise ValueError('overlap is "skip" or "queue"')
    if not (isinstance(schedule.catch_up, timedelta) and schedule.catch_up >= timedelta(0)):
        raise ValueError("catch_up is a timedelta, such as timedelta(hours=6)")
    if schedule.queue is not None and not is_name(schedule.queue):
        raise ValueError(f"queue is the name of a queue, {NAME_RULE}, or None for the worker's own")
