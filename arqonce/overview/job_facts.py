"""Gathers all that both servers have of one job. Prints nothing; ``job_story`` tells it."""

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import NoPermissionError
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce.connection.job_keys import JobKeys, read_job_keys, unique_in_redis
from arqonce.connection.presence import LiveWorker, live_workers, unserved, what_they_do
from arqonce.failures import InvalidMessageError
from arqonce.ledger.attempts import attempts_of
from arqonce.ledger.job_rows import (
    LetterRow,
    PromiseRow,
    ReceiptRow,
    Related,
    jobs_among,
    letter_row,
    message_of_letter,
    message_of_promise,
    promise_row,
    receipt_row,
    result_of,
    unique_until,
)
from arqonce.ledger.pauses import list_pauses
from arqonce.ledger.tables import AttemptRecord, Pause, ScheduleState
from arqonce.overview.looks import Looks
from arqonce.running import follow_up_id, root_of
from arqonce.wire.codec import decode
from arqonce.wire.message import Message, read_message
from arqonce.wire.request import unique_name_of

ATTEMPTS = "failed attempts"
"""How they are called if they cannot be seen."""

MOST_ATTEMPTS = 100
"""So many of the latest attempts are shown."""

_FIRST, _MOST_NUMBERS = 20, 200
"""Follow-ups of each kind that are looked for: the first ones, and if all of these are there, so many."""

_SLOT = re.compile(r"schedule:(?P<name>.+):(?P<slot>[0-9]{4}-[^:]+:[0-9]{2}:[0-9]{2}Z)")


@dataclass(kw_only=True)
class LedgerFacts:
    """What PostgreSQL has."""

    promise: PromiseRow | None = None
    attempts: Sequence[AttemptRecord] = ()
    receipt: ReceiptRow | None = None
    letter: LetterRow | None = None
    message: bytes | None = None
    result: dict[str, Any] | None = None
    parent: Related | None = None
    follow_ups: Sequence[Related] = ()
    schedule_paused_until: datetime | None = None
    """Of a slot of a schedule that is paused now."""
    unique_until: datetime | None = None
    pauses: Sequence[Pause] = ()
    """All that are in force."""

    @property
    def is_there(self) -> bool:
        """Whether the job itself is."""
        return bool(self.promise or self.receipt or self.letter or self.attempts)

    @property
    def names(self) -> set[str]:
        """The job's names on the wire: one, unless its id was used for two requests."""
        rows = [row for row in (self.promise, self.receipt, self.letter) if row is not None and row.job_name]
        return {str(row.job_name) for row in rows}

    @property
    def unique_names(self) -> set[bytes]:
        """By which the request is known if it is unique for a time."""
        found = self.promise or self.letter
        if found is None or found.request_hash is None or found.job_name is None or found.queue is None:
            return set()
        return {unique_name_of(found.queue, found.job_name, found.request_hash)}


class Run(NamedTuple):
    """A run of the job."""

    worker: str
    since: datetime


@dataclass(kw_only=True)
class JobFacts:
    """What both servers have of a job."""

    job_id: str
    keys: JobKeys | None = None
    """``None`` if Redis could not be asked."""

    ledger: LedgerFacts | None = None
    """``None`` if PostgreSQL could not be asked, or if there is no DATABASE_URL."""

    queues: Sequence[str] = ()
    """The queues in which it was looked for."""

    unserved: Sequence[str] = ()
    """Of the queues in which it is due, or for which it is promised and due, those that no worker serves."""

    message: Message | None = None
    """``None`` if no server has it, or it cannot be read."""

    runs_on: Run | None = None
    """The worker that says that it runs the job; each says so every 5 s, and names 20 jobs."""

    answer: dict[str, Any] | None = None
    """The result in Redis, with arq's fields."""

    not_seen: Sequence[str] = ()
    troubles: list[str] = field(default_factory=list)
    """Why a server could not be asked."""


def slot_of(job_id: str) -> tuple[str, str] | None:
    """Return the schedule and the slot that an id names."""
    found = _SLOT.fullmatch(job_id)
    return None if found is None else (found["name"], found["slot"])


async def read_ledger_facts(looks: Looks, job_id: str, kinds: Sequence[str], *, with_data: bool) -> LedgerFacts:
    """Ask PostgreSQL. Follow-ups of these ``kinds`` are found.

    Raises:
        SQLAlchemyError: it cannot be asked.
    """
    facts = LedgerFacts()
    facts.promise = await looks.in_ledger("the promise", lambda session: promise_row(session, job_id), None)
    facts.receipt = await looks.in_ledger("the receipt", lambda session: receipt_row(session, job_id), None)
    facts.letter = await looks.in_ledger("the dead letter", lambda session: letter_row(session, job_id), None)
    facts.attempts = await looks.in_ledger(
        ATTEMPTS, lambda session: attempts_of(session, job_id, limit=MOST_ATTEMPTS), []
    )
    if facts.letter is not None:
        what = "the dead letter's message"
        facts.message = await looks.in_ledger(what, lambda session: message_of_letter(session, job_id), None)
    elif facts.promise is not None and with_data:
        what = "the promise's message"
        facts.message = await looks.in_ledger(what, lambda session: message_of_promise(session, job_id), None)
    if facts.receipt is not None and with_data:
        facts.result = await looks.in_ledger("the result", lambda session: result_of(session, job_id), None)
    if (slot := slot_of(job_id)) is not None:
        until, name = ScheduleState.paused_until, ScheduleState.name
        pause = select(until).where(name == slot[0], until > func.now())
        facts.schedule_paused_until = await looks.in_ledger("the schedule", lambda session: session.scalar(pause), None)
    if names := facts.unique_names:
        what = "unique requests"
        facts.unique_until = await looks.in_ledger(what, lambda session: unique_until(session, names, job_id), None)
    facts.pauses = await looks.in_ledger("pauses", list_pauses, ())
    await _find_relatives(looks, facts, job_id, kinds)
    return facts


async def _find_relatives(looks: Looks, facts: LedgerFacts, job_id: str, kinds: Sequence[str]) -> None:
    root = root_of(job_id)
    if root != job_id:
        # Of a longer chain only the message names the parent.
        ids = [follow_up_id(root, name, number) for name in facts.names for number in range(1, _MOST_NUMBERS)]
        if job_id in ids:
            none: Sequence[Related] = ()
            found = await looks.in_ledger("the parent", lambda session: jobs_among(session, [root]), none)
            facts.parent = next(iter(found), None)
    facts.follow_ups = await looks.in_ledger(
        "follow-ups", lambda session: _follow_ups(session, job_id, sorted({*kinds, *facts.names})), []
    )


async def _follow_ups(session: AsyncSession, job_id: str, kinds: Sequence[str]) -> Sequence[Related]:
    first = [follow_up_id(job_id, name, number) for name in kinds for number in range(1, _FIRST + 1)]
    found = await jobs_among(session, first)
    there = {one.job_id for one in found}
    many = [name for name in kinds if follow_up_id(job_id, name, _FIRST) in there]
    rest = [follow_up_id(job_id, name, number) for name in many for number in range(_FIRST + 1, _MOST_NUMBERS + 1)]
    return [*found, *(await jobs_among(session, rest) if rest else ())]


async def read_redis_facts(redis: Redis, facts: JobFacts, queues: Sequence[str], looks: Looks) -> None:
    """Ask Redis, in these queues and all that live workers serve.

    Raises:
        RedisError: it cannot be asked.
    """
    workers = await looks.in_redis("live workers", live_workers(redis), [])
    facts.queues = list(dict.fromkeys([*queues, *(queue for worker in workers for queue in worker.queues)]))
    facts.keys = keys = await read_job_keys(redis, facts.job_id, facts.queues)
    looks.not_seen += [f"{key}: this user of Redis may not look" for key in keys.denied]
    if keys.is_locked:
        facts.runs_on = await looks.in_redis("who runs it", _run_of(redis, workers, facts.job_id), None)
    ledger = facts.ledger
    due = [queue for queue, due_at in waits_in(keys, ledger).items() if due_at <= keys.now]
    if due and not keys.is_locked:
        facts.unserved = await looks.in_redis("who serves its queue", unserved(redis, due), [])
    if ledger is not None and ledger.unique_until is None:
        with suppress(NoPermissionError):
            for name in ledger.unique_names:
                if left := await unique_in_redis(redis, name, facts.job_id):
                    ledger.unique_until = keys.now + left


def waits_in(keys: JobKeys, ledger: LedgerFacts | None) -> dict[str, datetime]:
    """Return the queues in which the job is, or for which it is promised, and when it is due there."""
    promise = ledger.promise if ledger is not None and ledger.receipt is None else None
    if keys.places or promise is None:
        return {place.queue: place.due_at for place in keys.places}
    return {promise.queue: promise.due_at}


async def _run_of(redis: Redis, workers: Sequence[LiveWorker], job_id: str) -> Run | None:
    for worker, doing in zip(workers, await what_they_do(redis, workers), strict=True):
        for job in (doing or {}).get("jobs", ()):
            if job.get("id") == job_id:
                return Run(f"{worker.host}:{worker.pid}", datetime.fromtimestamp(float(job["since"]), UTC))
    return None


def read_texts(facts: JobFacts) -> None:
    """Read the message and the result, wherever they are."""
    keys, ledger = facts.keys, facts.ledger
    for text in (keys and keys.message, ledger and ledger.message):
        if text and facts.message is None:
            with suppress(InvalidMessageError):
                facts.message = read_message(text)
    if keys is not None and keys.result is not None:
        with suppress(InvalidMessageError):
            facts.answer = decode(keys.result)
