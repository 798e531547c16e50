"""Tells open pages that something has changed: server-sent events. A page then asks for itself again."""

import asyncio
from datetime import timedelta

from aiohttp import web

from arqonce.console.asked import PageError
from arqonce.console.core import Console, console_of, person_of
from arqonce.console.guard import find_person

MOST_VIEWERS = 200
"""Open pages that are told; others show what was when they were loaded."""

MOST_OF_ONE = 50
"""Of one person: so nobody takes the places of all others."""

_SILENCE = timedelta(seconds=15)
"""A comment is sent after this, so that a viewer who has gone is noticed."""

VIEWERS = web.AppKey("viewers", dict[asyncio.Task[None], str])
"""Who is told, each with a name."""


async def tell_changes(request: web.Request) -> web.StreamResponse:
    """Send the version of each reading that differs from the one before, until the viewer leaves or is logged out."""
    viewers, name = request.app[VIEWERS], person_of(request).name
    if len(viewers) >= MOST_VIEWERS or list(viewers.values()).count(name) >= MOST_OF_ONE:
        raise PageError(503, "Too many pages are open", f"There may be {MOST_VIEWERS}, and {MOST_OF_ONE} of yours.")
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
    await response.prepare(request)
    telling = asyncio.create_task(_tell(request, response, console_of(request)))
    viewers[telling] = name
    telling.add_done_callback(lambda ended: viewers.pop(ended, None))
    try:
        await telling
    except (ConnectionError, asyncio.CancelledError):
        telling.cancel()
        if (task := asyncio.current_task()) is not None and task.cancelling():
            raise
    return response


async def _tell(request: web.Request, response: web.StreamResponse, console: Console) -> None:
    person, told = person_of(request), None
    with console.poll.watched():
        await response.write(b"retry: 3000\n\n")
        reading = await console.poll.latest()
        while request.transport is not None and find_person(request) == person:
            if reading.version != told:
                told = reading.version
                await response.write(f"event: changed\ndata: {told}\n\n".encode())
            try:
                async with asyncio.timeout(_SILENCE.total_seconds()):
                    reading = await console.poll.next()
            except TimeoutError:
                await response.write(b": still here\n\n")


async def leave_viewers(app: web.Application) -> None:
    """End all of these responses, so that the process can end."""
    viewers = app[VIEWERS]
    for telling in [*viewers]:
        telling.cancel()
