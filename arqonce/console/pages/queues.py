"""Queues: what waits in each, by kind, and what is paused; pauses and resumes them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from aiohttp import web
from pydantic import Field

from arqonce.connection.queue_kinds import OTHER, held_jobs, oldest_jobs
from arqonce.connection.queue_status import QueueStatus
from arqonce.connection.redis import explained
from arqonce.console.acts import MOST_SAMPLES, Choice, Preview, see_done, show_preview
from arqonce.console.asked import Asked, Name, PageError, Reason, read_form, read_query
from arqonce.console.core import console_of, may_act, person_of
from arqonce.console.done import Done, Link
from arqonce.console.poll import Reading
from arqonce.console.rendering import link, number
from arqonce.console.responses import show_page
from arqonce.console.routes import act, page, preview
from arqonce.console.trends import RangeName, charts_of
from arqonce.control import queues as control
from arqonce.control.queues import Target
from arqonce.failures import QueueUnavailableError
from arqonce.ledger.overview import PromisedIn
from arqonce.ledger.pauses import WHOLE
from arqonce.ledger.tables import Pause
from arqonce.overview.looks import Looks
from arqonce.spec import Registry

_LENGTHS = {
    "15m": (timedelta(minutes=15), "15 minutes"),
    "1h": (timedelta(hours=1), "an hour"),
    "4h": (timedelta(hours=4), "4 hours"),
    "1d": (timedelta(days=1), "a day"),
}

_UNTIL_RESUMED = "resumed"

_FOR_EVER = (_UNTIL_RESUMED, "until somebody resumes it")


@dataclass(frozen=True, kw_only=True)
class _Queue:
    """One row of the list."""

    name: str
    status: QueueStatus
    workers: int
    is_unserved: bool
    promised: PromisedIn | None
    pauses: Sequence[Pause]

    @property
    def pause(self) -> Pause | None:
        """The pause of the whole queue."""
        return next((one for one in self.pauses if one.job_name == WHOLE), None)


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """A kind of jobs in a queue."""

    name: str
    waiting: int
    workers: int
    """Live workers of the queue that say that they can run it."""

    pause: Pause | None
    limits: Sequence[str] = ()
    """As the registry of the console has them."""


class _AskedQueue(Asked):
    name: Name
    range: RangeName = "hour"


class _AskedTarget(Asked):
    queue: Name
    kind: Name | None = None

    @property
    def target(self) -> Target:
        """What it is about."""
        return Target(self.queue, self.kind or WHOLE)

    @property
    def page(self) -> Link:
        """Its page."""
        return Link(link("/queue", name=self.queue), "The queue")


class _Pause(_AskedTarget):
    reason: Reason = Field(min_length=1)
    length: Literal["15m", "1h", "4h", "1d", "resumed"]


class _Resume(_AskedTarget):
    reason: Reason | None = None


async def show_queues(request: web.Request) -> web.Response:
    """List all queues of the latest reading."""
    reading = await console_of(request).poll.latest()
    return show_page(request, "queues.html", reading=reading, queues=_queues(reading), may_act=may_act(request))


async def show_queue(request: web.Request) -> web.Response:
    """Show one queue, and its jobs by kind."""
    asked = read_query(request, _AskedQueue)
    name = asked.name
    reading = await console_of(request).poll.latest()
    queue = next((one for one in _queues(reading) if one.name == name), None)
    if queue is None and reading.queues is not None:
        raise PageError(404, "There is no such queue", "No worker serves it, and no job of it is known.")
    kinds = None if reading.queues is None else reading.queues.kinds.get(name)
    return show_page(
        request, "queue.html", reading=reading, name=name, queue=queue, kinds=kinds, may_act=may_act(request),
        rows=_kinds(reading, name, console_of(request).application.registry), other=OTHER, range=asked.range,
        charts=await charts_of(request, reading, asked.range, name),
    )  # fmt: skip


def _queues(reading: Reading) -> list[_Queue]:
    figures, queues = reading.ledger.figures, reading.queues
    if queues is None:
        return []
    promised = {one.queue: one for one in (figures and figures.promised) or ()}
    return [
        _Queue(
            name=name,
            status=status,
            workers=queues.served[name],
            is_unserved=name in queues.unserved,
            promised=promised.get(name),
            pauses=[pause for pause in (figures and figures.pauses) or () if pause.queue == name],
        )
        for name, status in queues.queues.items()
    ]


def _kinds(reading: Reading, queue: str, registry: Registry) -> list[_Kind]:
    figures, queues = reading.ledger.figures, reading.queues
    waiting = {} if queues is None or queue not in queues.kinds else queues.kinds[queue].waiting
    pauses = {one.job_name: one for one in (figures and figures.pauses) or () if one.queue == queue}
    run = [kind for worker in reading.workers if queue in worker.live.queues for kind in worker.said.kinds]
    names = dict.fromkeys([*waiting, *sorted(pauses), *sorted(run)])
    return [
        _Kind(
            name=name,
            waiting=waiting.get(name, 0),
            workers=run.count(name),
            pause=pauses.get(name),
            limits=_limits(registry, name),
        )
        for name in names
        if name != WHOLE
    ]


def _limits(registry: Registry, name: str) -> Sequence[str]:
    return [str(limit) for limit in registry[name].limits] if name in registry.names else ()


async def preview_pause(request: web.Request) -> web.Response:
    """Say what a pause would do."""
    asked = read_query(request, _AskedTarget)
    target = asked.target
    what = f"jobs {target.job_name}" if target.job_name else "jobs"
    lengths = [(value, f"for {text}") for value, (_, text) in _LENGTHS.items()]
    return show_preview(
        request,
        Preview(
            title=f"Pause {target}",
            number=await _concerned(request, target),
            sentences=[
                f"No more {what} of the queue {target.queue} start, on any worker. Those that run now end.",
                "Waiting jobs stay, and lose no attempt. Producers and schedules go on.",
                "The pause outlives restarts, deploys and a loss of Redis. Workers of arq's own class do not obey.",
            ],
            samples=await _samples(request, target),
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
    asked = await read_form(request, _Pause)
    length = None if asked.length == _UNTIL_RESUMED else _LENGTHS[asked.length][0]
    async with console_of(request).sessions.begin() as session:
        until = await control.pause(
            session, asked.target, reason=asked.reason, who=person_of(request).name, length=length
        )
    ends = "until somebody resumes it" if until is None else f"until {until:%Y-%m-%d %H:%M:%S} UTC"
    return await _tell(request, asked, f"Paused {asked.target}", f"It is paused {ends}.")


async def preview_resume(request: web.Request) -> web.Response:
    """Say what a resumption would do."""
    asked = read_query(request, _AskedTarget)
    return show_preview(
        request,
        Preview(
            title=f"Resume {asked.target}",
            number=await _concerned(request, asked.target),
            sentences=["Jobs that wait start again, in their order."],
            samples=await _samples(request, asked.target),
            button="Resume it",
            action="/queues/resume",
            fields=_fields(asked),
            back=asked.page,
        ),
    )


async def resume(request: web.Request) -> web.Response:
    """Resume it."""
    asked = await read_form(request, _Resume)
    async with console_of(request).sessions.begin() as session:
        was_paused = await control.resume(session, asked.target, who=person_of(request).name, why=asked.reason)
    if not was_paused:
        raise PageError(409, "It is not paused", f"{asked.target} is not paused any more: somebody has resumed it.")
    return await _tell(request, asked, f"Resumed {asked.target}", "Jobs that wait start again.")


async def _tell(request: web.Request, asked: _AskedTarget, title: str, sentence: str) -> web.Response:
    console, sentences = console_of(request), [sentence]
    try:
        with explained(console.settings.queue.url.get_secret_value()):
            await control.tell_workers(console.redis, console.sessions, [asked.queue])
    except QueueUnavailableError as error:
        sentences += [f"It is recorded, but workers do not know yet: {error}.", "They will as soon as Redis is back."]
    return see_done(
        request, Done(title=title, sentences=sentences, is_complete=len(sentences) == 1, links=[asked.page])
    )


def _fields(asked: _AskedTarget) -> dict[str, str]:
    return {name: value for name, value in (("queue", asked.queue), ("kind", asked.kind)) if value is not None}


async def _concerned(request: web.Request, target: Target) -> str:
    """Say how many jobs wait or are held."""
    reading = await console_of(request).poll.fresh()
    status = None if reading.queues is None else reading.queues.queues.get(target.queue)
    if status is None or reading.queues is None:
        return "a number of jobs that cannot be seen now"
    if target.job_name == WHOLE:
        return _jobs(status.waiting + status.held)
    kinds = reading.queues.kinds[target.queue]
    held, _ = await _held(request, target)
    return ("about " if kinds.is_estimate else "") + _jobs(kinds.waiting.get(target.job_name, 0) + held)


def _jobs(count: int) -> str:
    return "one job that waits or is held" if count == 1 else f"{number(count)} jobs that wait or are held"


async def _samples(request: web.Request, target: Target) -> Sequence[str]:
    console, none = console_of(request), list[str]()
    if target.queue not in (await console.poll.latest()).known:
        return none
    _, held = await _held(request, target)
    with explained(console.settings.queue.url.get_secret_value()):
        waiting = await Looks().in_redis(
            "samples", oldest_jobs(console.redis, target.queue, target.job_name or None, limit=MOST_SAMPLES), none
        )
    return [*held, *waiting]


async def _held(request: web.Request, target: Target) -> tuple[int, list[str]]:
    """Return how many jobs of the kind workers have put aside, and some of them."""
    console, none = console_of(request), (0, list[str]())
    if target.job_name == WHOLE:
        return none
    with explained(console.settings.queue.url.get_secret_value()):
        found = held_jobs(console.redis, target.queue, target.job_name, limit=MOST_SAMPLES)
        return await Looks().in_redis("held jobs", found, none)


ROUTES = (
    page("/queues", show_queues),
    page("/queue", show_queue),
    preview("/queues/pause", preview_pause),
    act("/queues/pause", pause),
    preview("/queues/resume", preview_resume),
    act("/queues/resume", resume),
)
