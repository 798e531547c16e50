"""Every act in Chromium: the preview, the confirmation, the page that says so, and the audit."""

from playwright.async_api import Page, expect

from arqonce.ledger.audit import list_acts
from arqonce.ledger.tables import DeadJob
from tests.arqonce.console.browser.fleet import QUEUE, REPORTS, Fleet
from tests.arqonce.console.browser.people import OpenPage
from tests.arqonce.console.browser.service import ChargeCard, RenderReport
from tests.arqonce.console.conftest import JANE
from tests.conftest import wait_until_async

_LIMIT = 20
"""Seconds until jobs have ended, on a busy machine."""


async def _confirm(page: Page, button: str, reason: str = "") -> None:
    """Do what the preview describes, and wait for the page that says that it is done."""
    await expect(page.locator("main")).to_contain_text("Nothing is done yet")
    await page.get_by_label("Reason").fill(reason)
    await page.get_by_role("button", name=button, exact=True).click()
    await expect(page.locator("main")).to_contain_text("Done")


async def _last_acts(fleet: Fleet, count: int) -> list[tuple[str, str, str, int, str | None]]:
    async with fleet.sessions() as session:
        found = await list_acts(session, since=None, limit=count)
    return [(one.who, one.act, one.target, one.number, one.why) for one in reversed(found)]


async def test_a_queue_is_paused_and_resumed(jane: Page, fleet: Fleet) -> None:
    """From the list of queues; the list says so, and so does the audit."""
    row = jane.get_by_role("row", name=REPORTS)
    await jane.goto(f"{fleet.url}/queues")
    await row.get_by_role("link", name=f"Pause {REPORTS}").click()
    await jane.get_by_label("How long").select_option("for 15 minutes")
    await _confirm(jane, "Pause it", "too many at once")
    await jane.goto(f"{fleet.url}/queues")
    await expect(row).to_contain_text("Paused")

    await row.get_by_role("link", name=f"Resume {REPORTS}").click()
    await _confirm(jane, "Resume it")
    await jane.goto(f"{fleet.url}/audit")

    await expect(jane.get_by_role("row").nth(1)).to_contain_text("queue resume")
    assert await _last_acts(fleet, 2) == [
        ("jane", "queue pause", REPORTS, 1, "too many at once"),
        ("jane", "queue resume", REPORTS, 1, None),
    ]


async def test_a_worker_is_drained_and_takes_jobs_again(jane: Page, fleet: Fleet) -> None:
    """The worker says itself that it has obeyed, on its page."""
    await jane.goto(f"{fleet.url}/workers")
    await jane.get_by_role("table").get_by_role("link").first.click()
    address = jane.url

    await jane.get_by_role("link", name="Drain it").click()
    await _confirm(jane, "Drain it")
    await jane.goto(address)
    await jane.get_by_role("link", name="Let it take jobs again").click()
    await _confirm(jane, "Let it work")
    await jane.goto(address)

    await expect(jane.get_by_role("link", name="Drain it")).to_be_visible()
    assert [act for _, act, *_ in await _last_acts(fleet, 2)] == ["workers drain", "workers undrain"]


async def test_a_job_is_found_by_its_key_seen_and_aborted(jane: Page, fleet: Fleet) -> None:
    """Its data are hidden until somebody asks for them, which the audit has, and stand in no address."""
    async with fleet.client(REPORTS) as client:
        await client.enqueue(RenderReport(year=1907), key="report-1907")
    await jane.goto(f"{fleet.url}/jobs")
    await jane.get_by_label("Id or its beginning").fill("report-1907")
    await jane.get_by_role("button", name="Find").click()
    await expect(jane.get_by_role("heading", level=1)).to_contain_text("report-1907")
    before = await jane.content()
    await jane.get_by_role("button", name="Show them").click()
    await expect(jane.locator("#data pre").first).to_contain_text('"year": 1907')

    await jane.get_by_role("link", name="Abort").click()
    await _confirm(jane, "Abort it", "wrong year")

    await jane.get_by_role("link", name="The job").click()
    await expect(jane.locator("#job")).to_contain_text("aborted")
    assert '"year"' not in before
    assert await _last_acts(fleet, 2) == [
        ("jane", "job data", "report-1907", 1, None),
        ("jane", "job abort", "report-1907", 1, "wrong year"),
    ]


async def test_dead_letters_are_retried_and_discarded(jane: Page, fleet: Fleet) -> None:
    """One by its page, which fails again; then that one is discarded."""
    async with fleet.client() as client:
        await client.enqueue(ChargeCard(number=1), key="charge-again")
    await _wait_for_death(fleet, "charge-again")
    await jane.goto(f"{fleet.url}/job?id=charge-again")

    await jane.get_by_role("link", name="Retry").click()
    await _confirm(jane, "Retry it", "the bank is back")
    await _wait_for_death(fleet, "charge-again")
    await jane.goto(f"{fleet.url}/job?id=charge-again")
    await jane.get_by_role("link", name="Discard").click()
    await _confirm(jane, "Discard it", "paid in cash")

    assert [(act, why) for _, act, _, _, why in await _last_acts(fleet, 4)] == [
        ("dead retry", "the bank is back"),
        ("dead retry, done", "the bank is back"),
        ("dead discard", "paid in cash"),
        ("dead discard, done", "paid in cash"),
    ]


async def test_a_schedule_is_paused_resumed_and_run(jane: Page, fleet: Fleet) -> None:
    """The list says so; what runs now is a job of its own."""
    row = jane.get_by_role("row", name="monthly-report")
    await jane.goto(f"{fleet.url}/schedules")
    await row.get_by_role("link", name="Pause").click()
    await _confirm(jane, "Pause it", "no reports in summer")
    await jane.goto(f"{fleet.url}/schedules")
    await expect(row).to_contain_text("no reports in summer")
    await row.get_by_role("link", name="Resume").click()
    await _confirm(jane, "Resume it")
    await jane.goto(f"{fleet.url}/schedules")

    await jane.get_by_role("link", name="Run now: stock").click()
    await _confirm(jane, "Run it now")

    assert [(act, target) for _, act, target, *_ in await _last_acts(fleet, 3)] == [
        ("schedules pause", "monthly-report"),
        ("schedules resume", "monthly-report"),
        ("schedules run-now", "stock"),
    ]


async def test_an_act_that_is_not_confirmed_is_none(open_page: OpenPage, fleet: Fleet) -> None:
    """Whoever leaves the preview has done nothing; a reason that is needed is asked for."""
    before = await _last_acts(fleet, 100)
    page = await open_page(f"/queues/pause?queue={QUEUE}", token=JANE)

    await page.get_by_role("button", name="Pause it").click()
    is_asked = await page.get_by_label("Reason").evaluate("(one) => one.matches(':invalid')")
    await page.get_by_role("link", name="Do nothing").click()

    await expect(page.get_by_role("heading", level=1)).to_have_text(QUEUE)
    assert is_asked
    assert await _last_acts(fleet, 100) == before


async def _wait_for_death(fleet: Fleet, key: str) -> None:
    async def is_dead() -> bool:
        async with fleet.sessions() as session:
            return await session.get(DeadJob, key) is not None

    await wait_until_async(is_dead, _LIMIT)
