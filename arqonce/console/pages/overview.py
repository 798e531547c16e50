"""The overview: what needs attention, and the state of the whole."""

from aiohttp import web

from arqonce.console.attention import needs_of
from arqonce.console.core import console_of, may_act
from arqonce.console.responses import show_page
from arqonce.console.routes import page
from arqonce.console.trends import charts_of
from arqonce.ledger.overview import MOST_READ

_MOST_NEEDS = 50
"""Most things that are shown of those that need attention; the rest is counted."""


async def show_overview(request: web.Request) -> web.Response:
    """Show the latest reading."""
    reading = await console_of(request).poll.latest()
    needs = needs_of(reading)
    return show_page(
        request,
        "overview.html",
        reading=reading,
        charts=await charts_of(request, reading, "hour"),
        needs=needs[:_MOST_NEEDS],
        more_needs=len(needs) - _MOST_NEEDS,
        may_act=may_act(request),
        most_read=MOST_READ,
    )


ROUTES = (page("/", show_overview),)
