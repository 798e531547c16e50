"""Schedules: when they are due next, how their last jobs fared; pauses, resumes and runs them now."""

from datetime import timedelta
from functools import partial
from typing import Annotated, Literal

from aiohttp import web
from pydantic import Field

from arqonce.console.acts import Choice, Preview, see_done, show_preview
from arqonce.console.asked import Asked, PageError, Reason, read_form, read_query
from arqonce.console.core import console_of, may_act, person_of
from arqonce.console.done import Done, Link
from arqonce.console.rendering import link, sentence
from arqonce.console.responses import show_page
from arqonce.console.routes import act, page, preview
from arqonce.control import schedules as control
from arqonce.ledger.schedule_control import UNTIL_RESUMED, ListedSchedule, list_schedules
from arqonce.schedules.schedule import Schedule
from arqonce.usage import UsageError

_ROWS = 50
"""Schedules of a page: to find the next slots of each takes a quarter of a millisecond."""

_SLOTS = 3
"""Next slots of a schedule that are shown."""

_LENGTHS = {
    "1h": (timedelta(hours=1), "an hour"),
    "4h": (timedelta(hours=4), "4 hours"),
    "1d": (timedelta(days=1), "a day"),
}

_UNTIL_RESUMED = "resumed"

_BACK = Link("/schedules", "Schedules")

_Name = Annotated[str, Field(max_length=200)]


class _AskedSchedules(Asked):
    paused: bool = False
    after: _Name | None = None
    """The last schedule of the page before."""


class _AskedSchedule(Asked):
    name: _Name


class _Pause(_AskedSchedule):
    reason: Reason = Field(min_length=1)
    length: Literal["1h", "4h", "1d", "resumed"]


class _Do(_AskedSchedule):
    reason: Reason | None = None


async def _one(request: web.Request, name: str) -> ListedSchedule:
    async with console_of(request).sessions() as session:
        found = await list_schedules(session, names=[name])
    if not found:
        raise PageError(404, "There is no such schedule", "No worker has one of this name.")
    return found[0]


async def show_schedules(request: web.Request) -> web.Response:
    """List the schedules that workers have."""
    asked, console = read_query(request, _AskedSchedules), console_of(request)
    reading = await console.poll.latest()
    async with console.sessions() as session:
        found = await list_schedules(session, is_paused=asked.paused, after=asked.after, limit=_ROWS + 1)
    shown, these = found[:_ROWS], partial(link, "/schedules", paused="true" if asked.paused else None)
    return show_page(
        request,
        "schedules.html",
        reading=reading,
        asked=asked,
        schedules=[(one, control.when(one), control.next_slots(one, _SLOTS)) for one in shown],
        first=these(),
        following=these(after=shown[-1].state.name) if len(found) > _ROWS else None,
        until_resumed=UNTIL_RESUMED,
        can_run=frozenset(console.application.registry.schedules),
        may_act=may_act(request),
    )


async def preview_pause(request: web.Request) -> web.Response:
    """Say what a pause would do."""
    one = await _one(request, read_query(request, _AskedSchedule).name)
    lengths = [(value, f"for {text}") for value, (_, text) in _LENGTHS.items()]
    return show_preview(
        request,
        Preview(
            title=f"Pause the schedule {one.state.name}",
            number="1 schedule",
            sentences=[
                "Slots that come meanwhile are skipped, and are not made up for. Jobs that are promised already run.",
                "The pause holds through restarts, deploys and a loss of Redis.",
            ],
            choices=[
                Choice(
                    name="length",
                    label="How long",
                    options=[*lengths, (_UNTIL_RESUMED, "until somebody resumes it")],
                    chosen="1h",
                )
            ],
            needs_reason=True,
            button="Pause it",
            action="/schedules/pause",
            fields={"name": one.state.name},
            back=_BACK,
        ),
    )


async def pause(request: web.Request) -> web.Response:
    """Pause it."""
    asked = await read_form(request, _Pause)
    until = UNTIL_RESUMED if asked.length == _UNTIL_RESUMED else _LENGTHS[asked.length][0]
    who = person_of(request).name
    async with console_of(request).sessions.begin() as session:
        found = await control.pause(session, [asked.name], until=until, who=who, why=asked.reason)
    return _tell(request, asked.name, found, f"Paused {asked.name}", "Its slots are skipped until then.")


async def preview_resume(request: web.Request) -> web.Response:
    """Say what a resumption would do."""
    one = await _one(request, read_query(request, _AskedSchedule).name)
    sentences = ["Slots that come from now on have jobs. Those of the pause remain skipped."]
    return _preview(request, one, "Resume the schedule", "resume", sentences, "Resume it")


async def resume(request: web.Request) -> web.Response:
    """Resume it."""
    asked, who = await read_form(request, _Do), person_of(request).name
    async with console_of(request).sessions.begin() as session:
        found = await control.resume(session, [asked.name], who=who, why=asked.reason)
    return _tell(request, asked.name, found, f"Resumed {asked.name}", "Its next slots have jobs.")


async def preview_run(request: web.Request) -> web.Response:
    """Say what one more job would be."""
    one = await _one(request, read_query(request, _AskedSchedule).name)
    _require_code(request, one.state.name)
    sentences = [
        "One more job of it is promised, due now, also while it is paused. Its slot is the time of the database.",
        "Its next slots have their jobs as always.",
    ]
    return _preview(request, one, "Run now", "run", sentences, "Run it now")


async def run(request: web.Request) -> web.Response:
    """Promise one more job."""
    asked, console = await read_form(request, _Do), console_of(request)
    registry = console.application.registry
    schedule = _require_code(request, asked.name)
    try:
        async with console.sessions.begin() as session:
            job_id = await control.run_now(
                session,
                registry,
                schedule,
                default_queue=console.settings.worker.default_queue,
                who=person_of(request).name,
                why=asked.reason,
            )
    except UsageError as error:
        raise PageError(409, "It cannot be run", sentence(str(error))) from error
    links = [Link(link("/job", id=job_id), "The job"), _BACK]
    return see_done(request, Done(title=f"Promised a job of {asked.name}", sentences=["It is due now."], links=links))


def _require_code(request: web.Request, name: str) -> Schedule:
    schedule = console_of(request).application.registry.schedules.get(name)
    if schedule is None:
        cure = (
            "Name the registry of its workers in the console's WORKER_REGISTRY, or start the application's own console."
        )
        raise PageError(409, "It cannot be run from here", f"The console does not have the code of {name}. {cure}")
    return schedule


def _preview(  # noqa: PLR0913, PLR0917 - the words of a preview
    request: web.Request, one: ListedSchedule, title: str, path: str, sentences: list[str], button: str
) -> web.Response:
    name = one.state.name
    return show_preview(
        request,
        Preview(
            title=f"{title}: {name}",
            number="1 schedule",
            sentences=sentences,
            button=button,
            action=f"/schedules/{path}",
            fields={"name": name},
            back=_BACK,
        ),
    )


def _tell(request: web.Request, name: str, found: set[str], title: str, sentence: str) -> web.Response:
    if name not in found:
        raise PageError(404, "There is no such schedule", "No worker has one of this name.")
    return see_done(request, Done(title=title, sentences=[sentence], links=[_BACK]))


ROUTES = (
    page("/schedules", show_schedules),
    preview("/schedules/pause", preview_pause),
    act("/schedules/pause", pause),
    preview("/schedules/resume", preview_resume),
    act("/schedules/resume", resume),
    preview("/schedules/run", preview_run),
    act("/schedules/run", run),
)
