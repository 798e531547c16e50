"""Pages that renew themselves: what they show, what they keep, and what becomes of them while a server is away."""

from datetime import timedelta

from playwright.async_api import Page, expect

from tests.arqonce.console.browser.fleet import QUEUE, REPORTS, Fleet
from tests.arqonce.console.browser.people import OpenPage
from tests.arqonce.console.browser.service import SendReceipt
from tests.arqonce.console.conftest import JANE, ROB
from tests.faults.proxy import Proxy

_SAME = "window.isSame = true"


async def test_a_page_shows_what_has_changed_without_a_reload(open_page: OpenPage, fleet: Fleet) -> None:
    """A job that is enqueued is counted; what has the focus keeps it."""
    page = await open_page(f"/queue?name={QUEUE}", token=ROB)
    deferred = page.locator("#queue .figure", has_text="Deferred").locator("dd")
    before = int(await deferred.inner_text())
    await page.evaluate(_SAME)
    link = page.locator("#queue").get_by_role("link", name="Workers")
    await link.focus()

    async with fleet.client() as client:
        await client.enqueue(SendReceipt(number=1), delay=timedelta(hours=1))

    await expect(deferred).to_have_text(str(before + 1))
    await expect(link).to_be_focused()
    assert await page.evaluate("window.isSame")


async def test_two_operators_see_what_each_other_does(open_page: OpenPage, fleet: Fleet) -> None:
    """What one pauses, the other sees without a reload, and can resume at once; then it is too late for the first."""
    jane = await open_page(f"/queue?name={REPORTS}", token=JANE)
    joan = await open_page(f"/queue?name={REPORTS}", token=JANE)
    await joan.evaluate(_SAME)
    await jane.get_by_role("link", name="Pause the queue").click()
    await jane.get_by_label("Reason").fill("mails are wrong")
    await jane.get_by_role("button", name="Pause it").click()
    await expect(jane.get_by_role("heading", level=1)).to_have_text(f"Paused {REPORTS}")

    await expect(joan.locator("#queue")).to_contain_text("by jane")
    await expect(joan.locator("#queue")).to_contain_text("mails are wrong")
    was_same = await joan.evaluate("window.isSame")
    await jane.goto(f"{fleet.url}/queues/resume?queue={REPORTS}")
    await joan.get_by_role("link", name="Resume the queue").click()
    await joan.get_by_role("button", name="Resume it").click()
    await expect(joan.get_by_role("heading", level=1)).to_have_text(f"Resumed {REPORTS}")
    await jane.get_by_role("button", name="Resume it").click()

    await expect(jane.get_by_role("heading", level=1)).to_have_text("It is not paused")
    assert was_same


async def _goes_away_and_comes_back(page: Page, proxy: Proxy, name: str) -> None:
    region = page.locator("#servers li", has_text=name)
    await expect(region).to_contain_text("Answers")
    await page.evaluate(_SAME)
    proxy.is_closed = True
    proxy.cut()
    try:
        await expect(region).to_contain_text("Away")
        await expect(page.locator("#needs")).to_contain_text(f"{name} is away")
    finally:
        proxy.heal()
    await expect(region).to_contain_text("Answers")
    await expect(page.locator("#needs")).not_to_contain_text(f"{name} is away")
    assert await page.evaluate("window.isSame")


async def test_an_outage_of_redis_is_said_and_passes(jane: Page, fleet: Fleet) -> None:
    """The open page says so by itself, and recovers by itself."""
    await _goes_away_and_comes_back(jane, fleet.to_redis, "Redis")


async def test_an_outage_of_postgresql_is_said_and_passes(jane: Page, fleet: Fleet) -> None:
    """Likewise."""
    await _goes_away_and_comes_back(jane, fleet.to_postgres, "PostgreSQL")


async def test_a_console_that_is_away_is_said(open_page: OpenPage) -> None:
    """What the page shows stays, with a sentence above it that it is older."""
    page = await open_page(f"/queue?name={QUEUE}", token=ROB)
    banner = page.get_by_role("status").first
    await expect(banner).to_be_hidden()

    await page.context.set_offline(True)
    await page.evaluate("renew()")
    await expect(banner).to_contain_text("What you see is older")
    await expect(page.get_by_role("heading", level=1)).to_have_text(QUEUE)
    await page.context.set_offline(False)
    await page.evaluate("renew()")

    await expect(banner).to_be_hidden()
