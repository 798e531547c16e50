"""Pictures of every page, for people to look at."""

from tests.arqonce.console.browser.fleet import Fleet
from tests.arqonce.console.browser.people import OpenPage
from tests.arqonce.console.browser.visits import Found, draw
from tests.arqonce.console.conftest import JANE
from tests.docs.blocks import ROOT

SCREENS = ROOT / ".cache" / "screens"
"""Where they are left."""


async def test_every_page_can_be_drawn(open_page: OpenPage, fleet: Fleet, found: Found) -> None:
    """In light and dark, and in a narrow window."""
    SCREENS.mkdir(parents=True, exist_ok=True)
    page = await open_page(token=JANE)

    for address in found.pages.values():
        await draw(page, fleet.url + address, SCREENS)

    assert len(list(SCREENS.glob("*.dark.png"))) >= len(found.pages)
