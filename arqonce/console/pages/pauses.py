"""Pauses and resumes a queue, a kind of jobs in it, or a kind in every queue."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal, Self

from aiohttp import web
from pydantic import Field, model_validator

from arqonce.connection.queue_kinds import held_jobs, oldest_jobs
from arqonce.connection.redis import explained
from arqonce.console.acts import MOST_SAMPLES, Choice, Preview, see_done, show_preview
from arqonce.console.asked import Asked, Name, PageError, Reason, read_form, read_query
from arqonce.console.core import Console, console_of, person_of
from arqonce.console.done import Done, Link
from arqonce.console.pages.job import JobId
from arqonce.console.poll import Reading
from arqonce.console.rendering import link, number
from arqonce.console.routes import act, preview
from arqonce.control import queues as control
from arqonce.control.queues import Target
from arqonce.failures import QueueUnavailableError
from arqonce.ledger.pauses import WHOLE
from arqonce.overview.looks import Looks

_LENGTHS = {
    "15m": (timedelta(minutes=15), "15 minutes"),
    "1h": (timedelta(hours=1), "an hour"),
    "4h": (timedelta(hours=4), "4 hours"),
    "1d": (timedelta(days=1), "a day"),
}

_UNTIL_RESUMED = "resumed"

_FOR_EVER = (_UNTIL_RESUMED, "until somebody resumes it")


class _AskedTarget(Asked):
    """A queue, a kind in it, or a kind in every queue."""

    queue: Name | None = None
    kind: Name | None = None
    job: JobId | None = None
    """From whose page one came."""

    @model_validator(mode="after")
    def _require_one(self) -> Self:
        if self.queue is None and self.kind is None:
            raise ValueError("name a queue, a kind, or both")
        return self

    @property
    def words(self) -> str:
        """The same in words."""
        return f"{self.kind} in every queue" if self.queue is None else str(Target(self.queue, self.kind or WHOLE))

    def targets(self, queues: Sequence[str]) -> list[Target]:
        """Return what it is about, if these are all queues."""
        return [Target(queue, self.kind or WHOLE) for queue in (queues if self.queue is None else [self.queue])]

    @property
    def page(self) -> Link:
        """Where to go on."""
        if self.job is not None:
            return Link(link("/job", id=self.job), "The job")
        if self.queue is None:
            return Link("/queues", "The queues")
        return Link(link("/queue", name=self.queue), "The queue")


class _Pause(_AskedTarget):
    reason: Reason = Field(min_length=1)
    length: Literal["15m", "1h", "4h", "1d", "resumed"]


class _Resume(_AskedTarget):
    reason: Reason | None = None


async def preview_pause(request: web.Request) -> web.Response:
    """Say what a pause would do."""
    asked = read_query(request, _AskedTarget)
    reading = await console_of(request).poll.fresh()
    targets = asked.targets(_served(console_of(request), reading))
    what, where = f"jobs {asked.kind}" if asked.kind else "jobs", _where(asked, targets)
    lengths = [(value, f"for {text}") for value, (_, text) in _LENGTHS.items()]
    return show_preview(
        request,
        Preview(
            title=f"Pause {asked.words}",
            number=await _concerned(request, reading, targets),
            sentences=[
                f"No more {what} of {where} start, on any worker. Those that run now end.",
                "Waiting jobs stay, and lose no attempt. Producers and schedules go on.",
                "The pause outlives restarts, deploys and a loss of Redis. Workers of arq's own class do not obey.",
            ],
            samples=await _samples(request, reading, targets),
            choices=[Choice(name="length", label="How long", options=[*lengths, _FOR_EVER], chosen="1h")],
            needs_reason=True,
            button="Pause it",
            action="/queues/pause",
            fields=_fields(asked),
            back=asked.page,
        ),
    )


async def pause(request: web.Request) -> web.Response:
    """Pause it."""
    asked, console = await read_form(request, _Pause), console_of(request)
    length = None if asked.length == _UNTIL_RESUMED else _LENGTHS[asked.length][0]
    targets = asked.targets(_served(console, await console.poll.latest()))
    until: datetime | None = None
    async with console.sessions.begin() as session:
        for target in targets:
            until = await control.pause(
                session, target, reason=asked.reason, who=person_of(request).name, length=length
            )
    ends = "until somebody resumes it" if until is None else f"until {until:%Y-%m-%d %H:%M:%S} UTC"
    return await _tell(request, asked, targets, f"Paused {asked.words}", f"It is paused {ends}.")


async def preview_resume(request: web.Request) -> web.Response:
    """Say what a resumption would do."""
    asked = read_query(request, _AskedTarget)
    reading = await console_of(request).poll.fresh()
    targets = asked.targets(_paused(reading, asked))
    return show_preview(
        request,
        Preview(
            title=f"Resume {asked.words}",
            number=await _concerned(request, reading, targets),
            sentences=[f"Jobs of {_where(asked, targets)} that wait start again, in their order."],
            samples=await _samples(request, reading, targets),
            button="Resume it",
            action="/queues/resume",
            fields=_fields(asked),
            back=asked.page,
        ),
    )


async def resume(request: web.Request) -> web.Response:
    """Resume it."""
    asked, console = await read_form(request, _Resume), console_of(request)
    targets = asked.targets(_paused(await console.poll.latest(), asked))
    async with console.sessions.begin() as session:
        were_paused = [
            await control.resume(session, target, who=person_of(request).name, why=asked.reason) for target in targets
        ]
    if not any(were_paused):
        raise PageError(409, "It is not paused", f"{asked.words} is not paused any more: somebody has resumed it.")
    return await _tell(request, asked, targets, f"Resumed {asked.words}", "Jobs that wait start again.")


def _served(console: Console, reading: Reading) -> list[str]:
    """Return every queue that workers serve, or are to serve."""
    served = [queue for worker in reading.workers for queue in worker.live.queues]
    names = dict.fromkeys([*console.settings.worker.queue.names, *served])
    return [name for name in names if name in reading.known]


def _paused(reading: Reading, asked: _AskedTarget) -> list[str]:
    """Return every queue in which the kind is paused."""
    return [one.queue for one in reading.pauses if one.job_name == asked.kind]


def _where(asked: _AskedTarget, targets: Sequence[Target]) -> str:
    if asked.queue is not None:
        return f"the queue {asked.queue}"
    return f"the queues {', '.join(target.queue for target in targets)}" if targets else "no queue"


async def _tell(
    request: web.Request, asked: _AskedTarget, targets: Sequence[Target], title: str, sentence: str
) -> web.Response:
    console, sentences = console_of(request), [sentence]
    try:
        with explained(console.settings.queue.url.get_secret_value()):
            await control.tell_workers(console.redis, console.sessions, [target.queue for target in targets])
    except QueueUnavailableError as error:
        sentences += [f"It is recorded, but workers do not know yet: {error}.", "They will as soon as Redis is back."]
    return see_done(
        request, Done(title=title, sentences=sentences, is_complete=len(sentences) == 1, links=[asked.page])
    )


def _fields(asked: _AskedTarget) -> dict[str, str]:
    return asked.model_dump(include={"queue", "kind", "job"}, exclude_none=True)


async def _concerned(request: web.Request, reading: Reading, targets: Sequence[Target]) -> str:
    """Say how many jobs wait or are held."""
    queues = reading.queues
    if queues is None or any(target.queue not in queues.queues for target in targets):
        return "a number of jobs that cannot be seen now"
    count, is_estimate = 0, False
    for target in targets:
        status, kinds = queues.queues[target.queue], queues.kinds[target.queue]
        if target.job_name == WHOLE:
            count += status.waiting + status.held
        else:
            count += kinds.waiting.get(target.job_name, 0) + (await held_of(request, target))[0]
            is_estimate |= kinds.is_estimate
    return ("about " if is_estimate else "") + _jobs(count)


def _jobs(count: int) -> str:
    return "one job that waits or is held" if count == 1 else f"{number(count)} jobs that wait or are held"


async def _samples(request: web.Request, reading: Reading, targets: Sequence[Target]) -> Sequence[str]:
    found: list[str] = []
    for target in targets:
        if target.queue in reading.known and len(found) < MOST_SAMPLES:
            found += await _samples_of(request, target)
    return found


async def _samples_of(request: web.Request, target: Target) -> Sequence[str]:
    console, none = console_of(request), list[str]()
    _, held = await held_of(request, target)
    with explained(console.settings.queue.url.get_secret_value()):
        waiting = await Looks().in_redis(
            "samples", oldest_jobs(console.redis, target.queue, target.job_name or None, limit=MOST_SAMPLES), none
        )
    return [*held, *waiting]


async def held_of(request: web.Request, target: Target) -> tuple[int, list[str]]:
    """Return how many jobs of the kind workers have put aside, and some of them. One round trip."""
    console, none = console_of(request), (0, list[str]())
    if target.job_name == WHOLE:
        return none
    with explained(console.settings.queue.url.get_secret_value()):
        found = held_jobs(console.redis, target.queue, target.job_name, limit=MOST_SAMPLES)
        return await Looks().in_redis("held jobs", found, none)


ROUTES = (
    preview("/queues/pause", preview_pause),
    act("/queues/pause", pause),
    preview("/queues/resume", preview_resume),
    act("/queues/resume", resume),
)
