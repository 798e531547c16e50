"""Jobs: those of one state, in pages, and the way to one by its id."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from typing import Annotated, NamedTuple

from aiohttp import web
from pydantic import AfterValidator, Field
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce.connection.queue_listing import MOST_READ as MOST_MESSAGES
from arqonce.connection.queue_listing import FoundIds, QueuePage, QueuePlace, QueueState, ids_beginning, list_queue
from arqonce.console.asked import Asked, Name, PageError, read_query
from arqonce.console.core import Console, console_of
from arqonce.console.places import is_too_far, read_place, read_queue_place, write_place
from arqonce.console.poll import Reading
from arqonce.console.rendering import link, sentence
from arqonce.console.responses import see, show_page
from arqonce.console.routes import page
from arqonce.ledger.id_search import FoundJob, jobs_beginning
from arqonce.ledger.listing import (
    MOST_READ,
    Done,
    Letter,
    Page,
    Place,
    Promised,
    list_letters,
    list_promises,
    list_receipts,
)
from arqonce.overview.looks import Looks
from arqonce.wire.keys import ID_RULE, is_job_id

_ROWS = 50
"""Jobs of a page."""

_MOST_QUEUES = 30
"""Queues in which ids are looked for."""


class State(StrEnum):
    """Where jobs are; the words of the glossary."""

    WAITING = "waiting"
    RUNNING = "running"
    DEFERRED = "deferred"
    HELD = "held"
    PARKED = "parked"
    PROMISED = "promised"
    DONE = "done"
    REFUSED = "refused"
    DEAD = "dead"


class _Words(NamedTuple):
    """What a state is called, and what it means."""

    title: str
    time: str
    empty: str


WORDS = {
    State.WAITING: _Words("Waiting", "Due since", "Jobs that are due and that no worker has claimed yet."),
    State.RUNNING: _Words("Running", "Claim holds until", "Jobs that workers of this library have claimed."),
    State.DEFERRED: _Words("Deferred", "Due", "Jobs that are due later: enqueued with a delay, or to be tried again."),
    State.HELD: _Words("Held", "Due since", "Jobs of a paused kind. They wait until it is resumed."),
    State.PARKED: _Words("Parked", "Due since", "Jobs that wait for a permit of a limit."),
    State.PROMISED: _Words(
        "Promised", "Given to Redis", "Jobs that were promised in a transaction and have not ended."
    ),
    State.DONE: _Words("Done", "Ended", "Jobs that have ended with a result. Read-only jobs leave no receipt."),
    State.REFUSED: _Words("Refused", "Ended", "Jobs that have ended with a failure that their handler chose."),
    State.DEAD: _Words("Dead", "Died", "Jobs that failed for good for a reason that nobody chose."),
}

_IN_QUEUE = frozenset(State(state.value) for state in QueueState)

WITHOUT_QUEUE = frozenset({State.DONE, State.REFUSED})
"""Receipts do not say from which queue a job came."""

WITH_TIME = frozenset({State.DONE, State.REFUSED, State.DEAD})
"""Lists that may begin at a time."""


def _in_utc(value: str) -> str:
    """Return a time in UTC, as fields for times have it. It is in UTC unless it says otherwise."""
    try:
        at = datetime.fromisoformat(value)
        at = at.astimezone(UTC) if at.tzinfo else at
    except (ValueError, OverflowError):
        raise ValueError("is no time such as 2026-06-01T12:00") from None
    return at.replace(tzinfo=None).isoformat(timespec="seconds" if at.second or at.microsecond else "minutes")


class _AskedJobs(Asked):
    state: State = State.WAITING
    queue: Name | None = None
    kind: Name | None = None
    before: Annotated[str, Field(max_length=40), AfterValidator(_in_utc)] | None = None
    after: str | None = None

    @property
    def begins_at(self) -> datetime | None:
        """The time before which jobs are to have ended."""
        return None if self.before is None else datetime.fromisoformat(self.before).replace(tzinfo=UTC)


class _AskedFind(Asked):
    id: Annotated[str, Field(max_length=1000)]


@dataclass(frozen=True, kw_only=True)
class _Row:
    """A job, as the list shows it."""

    job_id: str
    name: str | None
    at: datetime | None
    note: str

    @property
    def href(self) -> str | None:
        """Its page; ``None`` if its id is none that a job may have."""
        return link("/job", id=self.job_id) if is_job_id(self.job_id) else None


_WHERE = {"dead": "dead letter", "tried": "an attempt has failed"}
"""What is said of a job that a table has in this state, if not the state itself."""


@dataclass(frozen=True, kw_only=True)
class _List:
    rows: Sequence[_Row]
    after: str | None
    read: int | None
    """How many jobs were looked at, if these are not all on this page."""

    ends_here: bool
    """Whether there is no next page although there are more jobs: too many have the same time."""


async def show_jobs(request: web.Request) -> web.Response:
    """List the jobs of a state."""
    asked, console = read_query(request, _AskedJobs), console_of(request)
    reading = await console.poll.latest()
    queues = _queues(console, reading)
    queue = asked.queue or queues[0]
    if asked.state in _IN_QUEUE:
        _require_known(queue, reading)
    listed = await _list(console, asked, queue)
    return show_page(
        request,
        "jobs.html",
        reading=reading,
        asked=asked,
        words=WORDS,
        queue=None if asked.state in WITHOUT_QUEUE else queue,
        queues=list(dict.fromkeys([*queues, queue])),
        has_time=asked.state in WITH_TIME,
        listed=listed,
        elsewhere=[] if asked.state in WITHOUT_QUEUE else _elsewhere(reading, asked.state, queue),
        is_held_whole=asked.state is State.HELD and _is_held_whole(reading, queue),
        kinds=_kinds(reading),
        following=None if listed.after is None else _following(asked, listed.after),
    )


def _queues(console: Console, reading: Reading) -> list[str]:
    named = console.settings.worker.queue.names
    return list(named) if reading.queues is None else list(reading.queues.queues) or list(named)


def _elsewhere(reading: Reading, state: State, but: str) -> list[tuple[str, int]]:
    """Return other queues that have jobs in this state, and how many."""
    figures, queues = reading.ledger.figures, {} if reading.queues is None else reading.queues.queues
    if state is State.PROMISED:
        counts = {one.queue: one.promised for one in (figures and figures.promised) or ()}
    else:
        counts = {name: getattr(status, state.value, 0) for name, status in queues.items()}
    return [(name, count) for name, count in counts.items() if count and name != but]


def _is_held_whole(reading: Reading, queue: str) -> bool:
    status = None if reading.queues is None else reading.queues.queues.get(queue)
    return status is not None and status.paused and status.held > 0


def _require_known(queue: str, reading: Reading) -> None:
    """Refuse other names: a sorted set of another program may have people's data."""
    if queue in reading.known:
        return
    if reading.queues is None:
        raise PageError(503, "Redis is away", sentence(reading.redis_trouble or ""))
    raise PageError(404, "There is no such queue", "No worker serves it, and no job of it is known.")


def _kinds(reading: Reading) -> list[str]:
    """Return names for the form: those of live workers."""
    return sorted({kind for worker in reading.workers for kind in worker.said.kinds})


def _following(asked: _AskedJobs, after: str) -> str:
    return link("/jobs", state=asked.state, queue=asked.queue, kind=asked.kind, before=asked.before, after=after)


async def _list(console: Console, asked: _AskedJobs, queue: str) -> _List:
    if asked.state in _IN_QUEUE:
        state, place = QueueState(asked.state), read_queue_place(asked.after)
        return _of_queue(await list_queue(console.redis, queue, state, job_name=asked.kind, after=place, limit=_ROWS))
    place_in_table = read_place(asked.after)
    if place_in_table is None and asked.state in WITH_TIME and asked.begins_at is not None:
        place_in_table = Place(asked.begins_at)
    async with console.sessions() as session:
        match asked.state:
            case State.PROMISED:
                return _of_table(
                    await list_promises(session, queue=queue, job_name=asked.kind, after=place_in_table, limit=_ROWS)
                )
            case State.DEAD:
                return _of_table(
                    await list_letters(
                        session, job_name=asked.kind, reason=None, queue=asked.queue, after=place_in_table, limit=_ROWS
                    )
                )
            case _:
                is_refused = asked.state is State.REFUSED
                return _of_table(
                    await list_receipts(
                        session, job_name=asked.kind, refused=is_refused, after=place_in_table, limit=_ROWS
                    )
                )


def _of_queue(found: QueuePage) -> _List:
    rows = [_Row(job_id=row.job_id, name=row.job_name, at=row.at, note="") for row in found.rows]
    return _page(rows, found.next, MOST_MESSAGES if found.is_partial else None)


def _of_table(found: Page[Done] | Page[Promised] | Page[Letter]) -> _List:
    rows = [_Row(job_id=row.job_id, name=row.job_name, at=row.at, note=_note(row)) for row in found.rows]
    return _page(rows, found.next, MOST_READ if found.is_partial else None)


def _page(rows: Sequence[_Row], following: Place | QueuePlace | None, read: int | None) -> _List:
    return _List(rows=rows, after=write_place(following), read=read, ends_here=is_too_far(following))


def _note(row: Done | Promised | Letter) -> str:
    match row:
        case Done():
            return row.code or (f"in attempt {row.attempt}" if row.attempt > 1 else "")
        case Letter():
            return f"{row.reason}, after {row.attempts} attempts"
        case Promised():
            return "not given yet" if row.dispatched_at is None else f"given {row.dispatches} times; the next time then"


async def find_job(request: web.Request) -> web.Response:
    """Go to the page of the job whose id, or key, somebody has typed; or list those whose ids begin so."""
    beginning, console = read_query(request, _AskedFind).id, console_of(request)
    if not is_job_id(beginning):
        raise PageError(400, "No job has such an id", f"{ID_RULE[:1].upper()}{ID_RULE[1:]}.")
    reading = await console.poll.latest()
    looks, none = Looks(console.sessions), FoundIds([], {})
    queues = [] if reading.queues is None else sorted(reading.known)
    unread, queues = len(queues[_MOST_QUEUES:]), queues[:_MOST_QUEUES]
    in_redis = await looks.in_redis("jobs in Redis", ids_beginning(console.redis, queues, beginning), none)
    in_ledger: Sequence[FoundJob] = ()
    if reading.ledger.trouble is None:
        in_ledger = await looks.in_ledger("jobs in PostgreSQL", partial(_jobs_beginning, beginning), in_ledger)
    found = _merged(in_ledger, in_redis.jobs)
    if {one.job_id for one in found} <= {beginning}:
        return see(link("/job", id=beginning))
    return show_page(
        request,
        "found.html",
        reading=reading,
        beginning=beginning,
        found=found[:_ROWS],
        has_more=len(found) > _ROWS,
        read_in_part=in_redis.read_in_part,
        unread=unread,
        not_seen=looks.not_seen,
    )


async def _jobs_beginning(beginning: str, session: AsyncSession) -> Sequence[FoundJob]:
    return await jobs_beginning(session, beginning, most=_ROWS + 1)


def _merged(in_ledger: Sequence[FoundJob], in_redis: Sequence[tuple[str, str]]) -> list[_Row]:
    """Return the jobs by id. Of one that both servers have, the ledger says more."""
    queued = {job_id: _Row(job_id=job_id, name=None, at=None, note=f"in {queue}") for job_id, queue in in_redis}
    found = {
        one.job_id: _Row(job_id=one.job_id, name=one.job_name, at=one.at, note=_WHERE.get(one.state, one.state))
        for one in in_ledger
    }
    return [one for _, one in sorted((queued | found).items())]


ROUTES = (page("/jobs", show_jobs), page("/jobs/find", find_job))
