"""One job: its story from both servers, its data behind a click, and its abort."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from aiohttp import web
from pydantic import AfterValidator

from arqonce.connection.redis import explained
from arqonce.console.acts import Preview, see_done, show_preview
from arqonce.console.asked import Asked, PageError, Reason, read_form, read_query
from arqonce.console.core import console_of, may_act, person_of
from arqonce.console.done import Done, Link
from arqonce.console.limits import limits_of
from arqonce.console.links import own_link
from arqonce.console.rendering import link
from arqonce.console.responses import show_page
from arqonce.console.routes import act, page, preview, reveal
from arqonce.control.jobs import abort as ask_to_abort
from arqonce.ledger.audit import record
from arqonce.overview.job_facts import JobFacts
from arqonce.overview.job_lookup import JobLookup, data_of, name_of
from arqonce.overview.job_story import NOWHERE, Event, events_of, state_of
from arqonce.overview.looks import Looks
from arqonce.wire.keys import require_job_id

_LOOKS = {"succeeded": "good", "refused": "warning", "dead": "bad", "failed": "bad", "unknown": "off"}

_ENDED = frozenset({"succeeded", "refused", "dead", "failed", "unknown"})

_BAD_EVENTS = frozenset({"attempt_failed", "died", "left", "no_message", "unserved"})
_GOOD_EVENTS = frozenset({"succeeded"})

_HELD_UP = {
    "unserved": "no worker serves its queue",
    "paused": "held by a pause",
    "held": "held by a pause",
    "parked": "for a permit of a limit",
    "not_given": "no relay has given it to Redis",
}
"""Why a job that has not begun does not begin, by what its story tells."""

LONGEST_DATA = 100_000
"""Characters of a payload or a result that are shown."""

JobId = Annotated[str, AfterValidator(require_job_id)]


class _AskedJob(Asked):
    id: JobId

    @property
    def page(self) -> Link:
        """The page of the job."""
        return Link(link("/job", id=self.id), "The job")


class _Abort(_AskedJob):
    reason: Reason | None = None


@dataclass(frozen=True, kw_only=True)
class _Line:
    """One part of the story."""

    at: datetime | None
    text: str
    look: str
    error: str | None
    links: Sequence[Link]
    """Where to go on: another job of which it tells, the queue that holds it up, the end of a pause."""


async def show_job(request: web.Request) -> web.Response:
    """Tell a job's story, without its data."""
    return await _show(request, read_query(request, _AskedJob).id)


async def show_data(request: web.Request) -> web.Response:
    """Show the job with its payload and its result. Who looked is on record before it is shown."""
    job_id = (await read_form(request, _AskedJob)).id
    async with console_of(request).sessions.begin() as session:
        await record(session, who=person_of(request).name, act="job data", target=job_id, number=1, why=None)
    return await _show(request, job_id, with_data=True)


async def _show(request: web.Request, job_id: str, *, with_data: bool = False) -> web.Response:
    console = console_of(request)
    reading = await console.poll.latest()
    facts = await _find(request, job_id, with_data=with_data)
    events, state, name = events_of(facts), state_of(facts), name_of(facts)
    return show_page(
        request,
        "job.html",
        reading=reading,
        job_id=job_id,
        name=name,
        state=state,
        look=_LOOKS.get(state, "waiting"),
        held_up=next((_HELD_UP[event.event] for event in reversed(events) if event.event in _HELD_UP), None),
        limits=limits_of(console.application.registry, name) if any(one.event == "parked" for one in events) else (),
        lines=[_line(event, job_id, name, may_act=may_act(request)) for event in events],
        nowhere=NOWHERE if state == "unknown" and not events and not facts.troubles else None,
        facts=facts,
        own_link=own_link(console.settings.console.links, name, job_id),
        may_act=may_act(request),
        can_be_aborted=state not in _ENDED and not facts.troubles,
        is_dead=state == "dead",
        is_final=state in _ENDED,
        may_see_data=person_of(request).rights.people,
        data=_texts(facts) if with_data else None,
    )


async def _find(request: web.Request, job_id: str, *, with_data: bool = False) -> JobFacts:
    console = console_of(request)
    settings, kinds = console.settings, list(console.application.registry.names)
    url, queues = settings.queue.url.get_secret_value(), sorted((await console.poll.latest()).known)
    lookup = JobLookup(console.redis, url, queues, kinds, settings.database)
    return await lookup.find(job_id, Looks(console.sessions), with_data=with_data)


def _line(event: Event, job_id: str, name: str | None, *, may_act: bool) -> _Line:
    is_good = event.event in _GOOD_EVENTS or event.facts.get("succeeded") is True
    look = "bad" if event.event in _BAD_EVENTS else "good" if is_good else "waiting"
    error = event.facts.get("error")
    links = list(_links(event, job_id, name, may_act=may_act))
    return _Line(at=event.at, text=event.text, look=look, error=error, links=links)


def _links(event: Event, job_id: str, name: str | None, *, may_act: bool) -> Iterator[Link]:
    if (other := event.facts.get("job_id")) is not None:
        yield Link(link("/job", id=other), "Open it")
    queue = event.facts.get("queue")
    if queue is None or event.at is not None:
        return
    yield Link(link("/queue", name=queue), "The queue")
    if event.event == "paused" and may_act:
        yield Link(link("/queues/resume", queue=queue, kind=event.facts["kind"] or None, job=job_id), "Resume it")
    if event.event == "parked":
        yield Link(link("/jobs", state="running", queue=queue, kind=name), "Those that run")


def _texts(facts: JobFacts) -> Sequence[tuple[str, str]]:
    """Return what the job was asked for and what it has returned, as texts."""
    found = data_of(facts)
    texts = [
        indented(title, found[key])
        for title, key in (("Payload", "payload"), ("Result", "result"))
        if found[key] is not None
    ]
    raw = facts.ledger.message if facts.ledger is not None else None
    if facts.message is None and raw:
        texts.append(("Message, which cannot be read", raw.decode("utf-8", "backslashreplace")))
    return texts


def indented(title: str, value: object) -> tuple[str, str]:
    """Return a title and a value, indented and cut: lists within lists may become 200 times as long as a message."""
    chunks, size = list[str](), 0
    for chunk in json.JSONEncoder(ensure_ascii=False, indent=2, default=str).iterencode(value):
        chunks.append(chunk)
        size += len(chunk)
        if size > LONGEST_DATA:
            return f"{title}, its first {LONGEST_DATA:,} characters", "".join(chunks)[:LONGEST_DATA]
    return title, "".join(chunks)


async def preview_abort(request: web.Request) -> web.Response:
    """Say what an abort would do."""
    asked = read_query(request, _AskedJob)
    facts = await _find(request, asked.id)
    state = state_of(facts)
    if state in _ENDED:
        raise PageError(409, "It cannot be aborted", f"The job {asked.id} is {state}: there is nothing to abort.")
    return show_preview(
        request,
        Preview(
            title=f"Abort the job {asked.id}",
            number="1 job",
            sentences=[
                f"It is {state} now. It ends as refused, with the code aborted, and has no effect.",
                "A job that commits before a worker sees this has taken effect, and is not aborted.",
                "Its producer is told so when it asks for the result.",
            ],
            samples=[f"{name_of(facts) or 'a job'} {asked.id}"],
            button="Abort it",
            action="/job/abort",
            fields={"id": asked.id},
            back=asked.page,
            is_final=True,
        ),
    )


async def abort(request: web.Request) -> web.Response:
    """Abort it."""
    asked, console = await read_form(request, _Abort), console_of(request)
    facts = await _find(request, asked.id)
    promise = facts.ledger.promise if facts.ledger is not None else None
    places = [place.queue for place in facts.keys.places] if facts.keys is not None else []
    queue = next(iter(places), promise.queue if promise else console.settings.worker.default_queue)
    who = person_of(request).name
    with explained(console.settings.queue.url.get_secret_value()):
        was_asked = await ask_to_abort(
            console.redis, console.sessions, asked.id, queue, is_promised=promise is not None, who=who, why=asked.reason
        )
    if not was_asked:
        raise PageError(409, "It cannot be aborted", f"The job {asked.id} has ended, or no server has it.")
    sentence = "A worker ends it as soon as it sees the request, within some seconds if one is there."
    return see_done(request, Done(title=f"Asked to abort {asked.id}", sentences=[sentence], links=[asked.page]))


ROUTES = (
    page("/job", show_job),
    reveal("/job/data", show_data),
    preview("/job/abort", preview_abort),
    act("/job/abort", abort),
)
