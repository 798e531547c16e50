"""Every page in Chromium: it opens, in any width and look, without scripts, and for everybody's eyes and hands."""

from collections import Counter
from collections.abc import Mapping
from urllib.parse import urlsplit

import pytest
from playwright.async_api import expect

from arqonce.console.application import ROUTES
from tests.arqonce.console.browser.fleet import Fleet
from tests.arqonce.console.browser.people import OpenPage, People
from tests.arqonce.console.browser.visits import Found, Visit, visit
from tests.arqonce.console.conftest import JANE, ROB

_BEHIND_ACTS = {"/live", "/done/{number}", "/dead/act/{number}", "/jobs/find", "/workers/undrain", "/job/abort"}
"""Routes to which scripts and forms lead, or what an act has changed: see the tests of these."""


@pytest.fixture(scope="package")
async def visits(fleet: Fleet, all_people: People, found: Found, axe: str) -> Mapping[str, Visit]:
    """Look at one page of each template, as an operator."""
    page = await all_people.open("/", token=JANE)
    seen = {name: await visit(page, fleet.url + address, axe) for name, address in found.templates.items()}
    await page.context.close()
    return seen


def test_links_lead_to_every_page(found: Found) -> None:
    """No page is there that an operator does not find from the overview, and no link leads nowhere."""
    routes = {route.path for route in ROUTES if route.method == "GET"}

    assert found.dead_ends == {}
    assert routes - _BEHIND_ACTS - {urlsplit(address).path for address in found.pages.values()} == set()


def test_no_page_has_a_barrier(visits: Mapping[str, Visit]) -> None:
    """axe-core finds no violation, in neither look."""
    assert {path: found.violations for path, found in visits.items() if found.violations} == {}


def test_no_page_is_wider_than_a_narrow_screen(visits: Mapping[str, Visit]) -> None:
    """At 380 pixels each row of a table is a list, and nothing scrolls sideways but tables of charts."""
    assert {path: found.too_wide for path, found in visits.items() if found.too_wide} == {}


def test_every_page_says_which_it_is(visits: Mapping[str, Visit]) -> None:
    """Each has a title of its own and one heading of the first level."""
    titles = Counter(found.title for found in visits.values())

    assert {path for path, found in visits.items() if found.headings != 1} == set()
    assert [title for title, count in titles.items() if count > 1 or title.startswith(" ")] == []


async def test_every_page_is_the_same_without_scripts(open_page: OpenPage, fleet: Fleet, found: Found) -> None:
    """Nothing is hidden that only a script would show, and times are there, in UTC."""
    page = await open_page("/", token=JANE, java_script_enabled=False)
    for address in found.templates.values():
        await page.goto(fleet.url + address)
        await expect(page.get_by_role("heading", level=1)).to_be_visible()
        assert await page.locator("main").inner_text() != ""
        for hidden in await page.locator("main :is(button, a, input):not(:visible)").all():
            assert await hidden.evaluate("(one) => one.matches('.copy, [type=hidden], details:not([open]) *')")


async def test_times_are_asked_for_as_they_are_shown(open_page: OpenPage) -> None:
    """In the viewer's zone, where a script can find it out; else in UTC. The address has UTC."""
    address, zone = "/jobs?state=done&before=2026-06-01T12:00", "America/New_York"
    plain = await open_page(address, token=ROB, timezone_id=zone, java_script_enabled=False)
    page = await open_page(address, token=ROB, timezone_id=zone)

    await expect(plain.get_by_label("Ended before, in UTC")).to_have_value("2026-06-01T12:00")
    field = page.get_by_label("Ended before, in your zone")
    await expect(field).to_have_value("2026-06-01T08:00")
    await field.fill("2026-06-01T09:30")
    await page.get_by_role("button", name="Show").click()

    await page.wait_for_url("**before=2026-06-01T13%3A30")
    await expect(field).to_have_value("2026-06-01T09:30")
