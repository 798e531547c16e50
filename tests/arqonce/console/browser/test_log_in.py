"""Who gets in, and what each may do, in a browser."""

from datetime import timedelta

from playwright.async_api import Page, expect

from tests.arqonce.console.browser.fleet import QUEUE, Fleet
from tests.arqonce.console.browser.people import OpenPage, log_in
from tests.arqonce.console.browser.service import SendReceipt
from tests.arqonce.console.conftest import ROB

_PAUSE = f"/queues/pause?queue={QUEUE}"


async def test_who_has_logged_in_sees_the_page_asked_for(open_page: OpenPage) -> None:
    """A wrong token is refused, and says no more; the right one leads on to the page; who logs out is out."""
    page = await open_page("/queues")
    await page.get_by_label("Token").fill("wrong")
    await page.get_by_role("button", name="Log in").click()
    refused = await page.get_by_role("alert").inner_text()

    await page.get_by_label("Token").fill(ROB)
    await page.get_by_role("button", name="Log in").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Queues")
    await page.get_by_role("button", name="Log out").click()
    await expect(page.get_by_label("Token")).to_be_visible()
    await page.go_back()

    await expect(page.get_by_label("Token")).to_be_visible()
    assert "wrong" not in refused


async def test_a_reader_sees_no_act_and_can_do_none(rob: Page, fleet: Fleet) -> None:
    """Pages offer none, and neither an address nor a form that the reader has from elsewhere does one."""
    await rob.get_by_role("link", name="Queues").first.click()
    await expect(rob.get_by_role("table").first).to_be_visible()
    offered = await rob.locator("main a.button").count()

    answer = await rob.goto(fleet.url + _PAUSE)
    sent = await rob.evaluate(
        """async () => (await fetch("/queues/pause", {method: "POST", body: new URLSearchParams(
            {queue: "arq:queue", length: "1h", reason: "x"})})).status"""
    )

    assert answer is not None
    assert (offered, answer.status, sent) == (0, 403, 403)
    assert "operator" in await rob.locator("#error").inner_text()


async def test_a_log_in_that_ends_elsewhere_ends_in_open_pages(open_page: OpenPage, fleet: Fleet) -> None:
    """A page that is open asks for the log-in as soon as it has something new to show."""
    page = await open_page("/log-in")
    await log_in(page, fleet.url, ROB)
    other = await page.context.new_page()
    await other.goto(fleet.url)

    await page.get_by_role("button", name="Log out").click()
    async with fleet.client() as client:
        await client.enqueue(SendReceipt(number=1), delay=timedelta(hours=1))

    await expect(other.get_by_label("Token")).to_be_visible()
