"""The audit: what operators did, with the page or with commands."""

from datetime import timedelta
from functools import partial
from typing import Annotated, Literal

from aiohttp import web
from pydantic import Field

from arqonce.console.asked import Asked, read_query
from arqonce.console.core import console_of
from arqonce.console.rendering import link
from arqonce.console.responses import show_page
from arqonce.console.routes import page
from arqonce.ledger.audit import MOST_READ, page_of_acts
from arqonce.ledger.tables import AuditRecord
from arqonce.wire.bounds import is_name
from arqonce.wire.keys import is_job_id

_SHOWN = 50

ACTS = (
    "queue pause", "queue resume", "workers drain", "workers undrain", "dead retry", "dead discard", "job abort",
    "job data", "schedules pause", "schedules resume", "schedules run-now",
)  # fmt: skip
"""Proposed when somebody looks for acts."""

SINCE = {
    "1h": (timedelta(hours=1), "the last hour"),
    "12h": (timedelta(hours=12), "the last 12 hours"),
    "1d": (timedelta(days=1), "the last day"),
    "7d": (timedelta(days=7), "the last week"),
}
"""Times to choose from."""

Text = Annotated[str, Field(max_length=1000)]


class _Asked(Asked):
    who: Text | None = None
    act: Text | None = None
    since: Literal["1h", "12h", "1d", "7d"] | None = None
    before: Annotated[int, Field(ge=1, lt=2**63)] | None = None


async def show_audit(request: web.Request) -> web.Response:
    """List acts, the last one first."""
    asked = read_query(request, _Asked)
    async with console_of(request).sessions() as session:
        since = None if asked.since is None else SINCE[asked.since][0]
        found = await page_of_acts(
            session, before=asked.before, who=asked.who, act=asked.act, since=since, limit=_SHOWN
        )
    these = partial(link, "/audit", who=asked.who, act=asked.act, since=asked.since)
    older = None if found.before is None else these(before=found.before)
    return show_page(
        request, "audit.html", acts=found.acts, asked=asked, older=older, latest=these(), known=ACTS, times=SINCE,
        page_of=_page_of, read=MOST_READ if found.is_partial else None,
    )  # fmt: skip


def _page_of(act: AuditRecord) -> str | None:
    """Return the page of what it was done to, as far as its name alone says so."""
    match act.act.split():
        case ["job", _] if is_job_id(act.target):
            return link("/job", id=act.target)
        case ["queue", _] if is_name(name := act.target.rpartition(" in ")[2]):
            return link("/queue", name=name)
        case ["schedules", _]:
            return "/schedules"
    return None


ROUTES = (page("/audit", show_audit),)
