"""Dead letters: groups by kind and reason, the letters of one, and retry or discard of a filter in steps."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Annotated, Self

from aiohttp import web
from pydantic import Field, model_validator
from redis.exceptions import RedisError

from arqonce.connection.redis import explain
from arqonce.console.acts import MOST_SAMPLES, Preview, see_done, show_preview
from arqonce.console.asked import Asked, Moment, Name, PageError, Reason, read_form, read_query
from arqonce.console.bulk import BulkAct, BulkState, Steps, wait_shortly
from arqonce.console.core import Console, console_of, may_act, person_of
from arqonce.console.done import Done, Link
from arqonce.console.pages.job import JobId
from arqonce.console.places import is_too_far, read_place, write_place
from arqonce.console.rendering import link, number
from arqonce.console.responses import see, show_page
from arqonce.console.routes import act, page, preview
from arqonce.control.dead_letters import DISCARD, RETRY, DeadAct, begin, discard_steps, retry_steps
from arqonce.failures import is_own_code
from arqonce.ledger.dead_groups import dead_groups
from arqonce.ledger.dead_jobs import DeadFilter, count_dead_jobs_up_to
from arqonce.ledger.listing import MOST_READ, Letter, Page, Place, list_letters
from arqonce.process.startup_errors import explain_database

_ROWS = 50

_MOST_COUNTED = 10_000
"""Letters are counted up to this before an act."""

_Code = Annotated[str, Field(max_length=300)]
"""A reason: a code, or the name of an exception's class."""


class _AskedWhich(Asked):
    """Which letters: those of a kind, of a reason, of both, one, or all."""

    kind: Name | None = None
    unnamed: bool = False
    code: _Code | None = None
    id: JobId | None = None

    @model_validator(mode="after")
    def _require_one(self) -> Self:
        if self.unnamed and self.kind is not None:
            raise ValueError("unnamed and kind exclude each other")
        return self

    @property
    def which(self) -> DeadFilter:
        """The filter."""
        ids = None if self.id is None else [self.id]
        return DeadFilter(job_ids=ids, job_name=self.kind, reason=self.code, is_unnamed=self.unnamed)

    @property
    def fields(self) -> dict[str, str]:
        """The same as fields of a form."""
        given = {"kind": self.kind, "unnamed": "true" if self.unnamed else None, "code": self.code, "id": self.id}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def words(self) -> str:
        """The same in words."""
        if self.id is not None:
            return f"the dead letter {self.id}"
        unnamed = ["without a name that can be read"] if self.unnamed else []
        named = [*([f"of {self.kind}"] if self.kind else []), *unnamed]
        reasons = [f"with the reason {self.code}"] if self.code else []
        return " ".join(["dead letters", *named, *reasons]) if named or reasons else "all dead letters"

    @property
    def back(self) -> Link:
        """The page from which one came."""
        if self.id is not None:
            return Link(link("/job", id=self.id), "The job")
        return Link(link("/dead/letters", **self.fields) if self.fields else "/dead", "The dead letters")


class _AskedLetters(_AskedWhich):
    after: str | None = None


class _Do(_AskedWhich):
    until: Moment | None = None
    """When the preview was made: letters that have died since then are none of those that were confirmed."""

    reason: Reason | None = None

    @property
    def which(self) -> DeadFilter:
        """The filter."""
        return replace(super().which, until=self.until)


class _Stop(Asked):
    number: Annotated[str, Field(max_length=40)]


async def show_groups(request: web.Request) -> web.Response:
    """Show the groups."""
    console = console_of(request)
    reading = await console.poll.latest()
    async with console.sessions() as session:
        groups, has_more = await dead_groups(session)
    return show_page(
        request, "dead.html", reading=reading, groups=groups, has_more=has_more, may_act=may_act(request),
        running=console.bulk.running,
    )  # fmt: skip


async def show_letters(request: web.Request) -> web.Response:
    """List the letters of a filter, the latest first."""
    asked, console = read_query(request, _AskedLetters), console_of(request)
    reading = await console.poll.latest()
    found = await _list(console, asked, after=read_place(asked.after), limit=_ROWS)
    following = write_place(found.next)
    return show_page(
        request,
        "dead_letters.html",
        reading=reading,
        asked=asked,
        letters=found.rows,
        read=MOST_READ if found.is_partial else None,
        first=link("/dead/letters", **asked.fields),
        ends_here=is_too_far(found.next),
        following=None if following is None else link("/dead/letters", **asked.fields, after=following),
        is_own_code=is_own_code,
        may_act=may_act(request),
    )


async def _list(console: Console, asked: _AskedWhich, *, after: Place | None, limit: int) -> Page[Letter]:
    async with console.sessions() as session:
        return await list_letters(
            session, job_name=asked.kind, reason=asked.code, is_unnamed=asked.unnamed, after=after, limit=limit
        )


async def _count(console: Console, which: DeadFilter) -> tuple[int, bool]:
    async with console.sessions() as session:
        return await count_dead_jobs_up_to(session, which, _MOST_COUNTED)


async def _samples(console: Console, asked: _AskedWhich) -> Sequence[str]:
    if asked.id is not None:
        return [asked.id]
    found = await _list(console, asked, after=None, limit=MOST_SAMPLES)
    return [f"{letter.job_id} {letter.job_name or '-'} {letter.reason}" for letter in found.rows]


_RETRY_SENTENCES = (
    "Their jobs are put back into their queues under their own ids, with no attempts used, the oldest first.",
    "A letter is deleted when its job takes effect; until then it stays. A job that fails again is dead again.",
)

_RETRY_ONE = (
    "Its job is put back into its queue under its own id, with no attempts used.",
    "The letter is deleted when its job takes effect; until then it stays. A job that fails again is dead again.",
)

_DISCARD_SENTENCES = ("They are removed for good, with their messages. Their jobs never happen.",)

_DISCARD_ONE = ("It is removed for good, with its message. Its job never happens.",)

_NO_LATER = "Letters of jobs that die after this page was made are not among them."

_IN_STEPS = (
    "It goes on in steps of 500 when you close this page, and can be stopped. It ends with the console; what is not "
    "done by then stays as it is."
)


async def preview_retry(request: web.Request) -> web.Response:
    """Say what a retry would do."""
    return await _preview(request, "Retry", _RETRY_ONE, _RETRY_SENTENCES, is_final=False)


async def preview_discard(request: web.Request) -> web.Response:
    """Say what would be removed."""
    return await _preview(request, "Discard", _DISCARD_ONE, _DISCARD_SENTENCES, is_final=True)


async def _preview(
    request: web.Request, verb: str, of_one: Sequence[str], of_many: Sequence[str], *, is_final: bool
) -> web.Response:
    asked, console = read_query(request, _AskedWhich), console_of(request)
    until = await begin(console.sessions)
    count, is_more = await _count(console, asked.which)
    if not count:
        raise PageError(409, "There is nothing to do", f"There are no such dead letters: {asked.words}.")
    concerned = f"{'more than ' if is_more else ''}{number(count)} dead letter{'' if count == 1 else 's'}"
    return show_preview(
        request,
        Preview(
            title=f"{verb} {asked.words}",
            number=concerned,
            sentences=of_one if asked.id else [*of_many, _NO_LATER, _IN_STEPS],
            samples=await _samples(console, asked),
            button=f"{verb} {'it' if count == 1 else 'them'}",
            action=f"/dead/{verb.lower()}",
            fields=asked.fields | {"until": until.isoformat()},
            back=asked.back,
            is_final=is_final,
        ),
    )


async def retry(request: web.Request) -> web.Response:
    """Put them back."""
    asked, console = await read_form(request, _Do), console_of(request)

    async def steps(until: datetime) -> AsyncGenerator[int, None]:
        own = console.settings.worker.default_queue
        found = retry_steps(console.sessions, console.redis, asked.which, until=until, default_queue=own)
        async for ids in found:
            yield len(ids)

    return await _start(request, asked, RETRY, verb="put back", steps=steps)


async def discard(request: web.Request) -> web.Response:
    """Remove them."""
    asked, console = await read_form(request, _Do), console_of(request)

    def steps(until: datetime) -> AsyncGenerator[int, None]:
        return discard_steps(console.sessions, asked.which, until=until)

    return await _start(request, asked, DISCARD, verb="discarded", steps=steps)


async def _start(request: web.Request, asked: _Do, name: str, *, verb: str, steps: Steps) -> web.Response:
    console = console_of(request)
    count, is_more = await _count(console, asked.which)
    if not count:
        raise PageError(409, "There is nothing to do", f"There are no such dead letters: {asked.words}.")
    one = BulkAct(
        act=DeadAct(name, asked.which, person_of(request).name, asked.reason),
        title=f"{name.removeprefix('dead ').capitalize()} {asked.words}",
        verb=verb,
        total=count,
        is_more=is_more,
        steps=steps,
    )
    console.bulk.start(one, console.sessions, explain=partial(_explain, console), ended=console.poll.ask_anew)
    await wait_shortly(one)
    if one.state is not BulkState.DONE:
        return see(f"/dead/act/{one.number}")
    done = f"{number(one.done)} dead letter{'' if one.done == 1 else 's'} {verb}."
    links = [*([asked.back] if asked.id else []), Link("/dead", "Dead letters")]
    return see_done(request, Done(title=one.title, sentences=[done.capitalize()], links=links))


def _explain(console: Console, error: Exception) -> str:
    if isinstance(error, RedisError):
        return f"{explain(error, console.settings.queue.url.get_secret_value())}."
    return f"{explain_database(error, console.settings.database)}."


async def show_act(request: web.Request) -> web.Response:
    """Show how far an act is."""
    one, console = _find(request, request.match_info["number"]), console_of(request)
    reading = await console.poll.latest()
    return show_page(request, "dead_act.html", reading=reading, one=one, may_act=may_act(request), states=BulkState)


async def stop(request: web.Request) -> web.Response:
    """Stop an act behind its present step."""
    one = _find(request, (await read_form(request, _Stop)).number)
    one.ends_as = BulkState.STOPPED
    await wait_shortly(one)
    return see(f"/dead/act/{one.number}")


def _find(request: web.Request, wanted: str) -> BulkAct:
    one = console_of(request).bulk.find(wanted)
    if one is None:
        raise PageError(404, "There is no such act", "It was long ago, or the console was started anew: see the audit.")
    return one


ROUTES = (
    page("/dead", show_groups),
    page("/dead/letters", show_letters),
    page("/dead/act/{number}", show_act),
    preview("/dead/retry", preview_retry),
    act("/dead/retry", retry),
    preview("/dead/discard", preview_discard),
    act("/dead/discard", discard),
    act("/dead/stop", stop),
)
