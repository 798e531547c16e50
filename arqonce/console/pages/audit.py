"""The audit: what operators did, with the page or with commands."""

from typing import Annotated

from aiohttp import web
from pydantic import Field

from arqonce.console.asked import Asked, read_query
from arqonce.console.core import console_of
from arqonce.console.rendering import link
from arqonce.console.responses import show_page
from arqonce.console.routes import page
from arqonce.ledger.audit import list_acts

_SHOWN = 50

ACTS = (
    "queue pause", "queue resume", "workers drain", "workers undrain", "dead retry", "dead discard", "job abort",
    "job data", "schedules pause", "schedules resume", "schedules run-now",
)  # fmt: skip
"""Proposed when somebody looks for acts."""

Text = Annotated[str, Field(max_length=1000)]


class _Asked(Asked):
    who: Text | None = None
    act: Text | None = None
    before: Annotated[int, Field(ge=1, lt=2**63)] | None = None


async def show_audit(request: web.Request) -> web.Response:
    """List acts, the last one first."""
    asked = read_query(request, _Asked)
    async with console_of(request).sessions() as session:
        found = await list_acts(
            session, since=None, limit=_SHOWN + 1, before=asked.before, who=asked.who, act=asked.act
        )
    acts, more = found[:_SHOWN], len(found) > _SHOWN
    older = link("/audit", who=asked.who, act=asked.act, before=acts[-1].id) if more else None
    return show_page(request, "audit.html", acts=acts, asked=asked, older=older, known=ACTS)


ROUTES = (page("/audit", show_audit),)
