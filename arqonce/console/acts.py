"""The three steps of every act: a preview that changes nothing, the confirmation that does it, a page that says so."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from aiohttp import web

from arqonce.console.core import console_of, person_of
from arqonce.console.done import Done, Link
from arqonce.console.responses import see, show_page

MOST_SAMPLES = 10


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A field with some values to choose from."""

    name: str
    label: str
    options: Sequence[tuple[str, str]]
    """Values, and what people read."""

    chosen: str = ""


@dataclass(frozen=True, kw_only=True)
class Preview:
    """What an act would do."""

    title: str
    """As an order: ``Pause the queue arq:queue``."""

    number: str
    """How many it concerns, in words: ``12 jobs``, ``more than 10,000 jobs``."""

    sentences: Sequence[str]
    """What will happen, and what will not."""

    button: str
    """Such as ``Pause it``."""

    action: str
    """The path of the form."""

    fields: dict[str, str]
    """What the form says again: to what it is done."""

    back: Link
    samples: Sequence[str] = ()
    """At most ten of those that it concerns."""

    choices: Sequence[Choice] = field(default=())
    needs_reason: bool = False
    """Whether a reason must be given; it always may."""

    is_final: bool = False
    """Whether it cannot be undone."""


def show_preview(request: web.Request, preview: Preview) -> web.Response:
    """Show what an act would do, with a form that does it."""
    return show_page(request, "preview.html", preview=preview, samples=preview.samples[:MOST_SAMPLES])


def see_done(request: web.Request, done: Done) -> web.Response:
    """Redirect to a page that says what was done. All open pages are told."""
    console = console_of(request)
    console.poll.ask_anew()
    return see(f"/done/{console.done.add(person_of(request).name, done)}")


async def show_done(request: web.Request) -> web.Response:
    """Show what an act has done; when that is forgotten, the audit still has it."""
    done = console_of(request).done.find(person_of(request).name, request.match_info["number"])
    if done is None:
        return see("/audit")
    return show_page(request, "done.html", done=done)
