"""One Chromium and one fleet for all tests of this folder, and the people who look at it."""

import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, async_playwright, expect

from arqonce.database.settings import DatabaseSettings
from arqonce.testing.programs import Programs
from tests.arqonce.console.browser.fleet import Fleet, Sessions, open_fleet
from tests.arqonce.console.browser.people import LIMIT_MS, OpenPage, People
from tests.arqonce.console.browser.visits import Found, follow_links
from tests.arqonce.console.conftest import JANE, ROB, browsing
from tests.programs import require

_CHROMIUM = "chromium"

_ARGUMENTS = (
    "--no-sandbox",  # tests may run as root, in a container
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--font-render-hinting=none",
)

expect.set_options(timeout=LIMIT_MS)


@pytest.fixture(scope="package")
async def chromium(starts_processes: None) -> AsyncIterator[Browser]:  # noqa: ARG001 - it says so
    """Start the Chromium of the system with an empty profile."""
    require(_CHROMIUM)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=shutil.which(_CHROMIUM), args=_ARGUMENTS)
        yield browser
        await browser.close()


@pytest.fixture(scope="package")
async def fleet(
    jobs_programs: Programs,
    tmp_path_factory: pytest.TempPathFactory,
    database: DatabaseSettings,
    valkey_url: str,
    shared_sessions: Sessions,
) -> AsyncIterator[Fleet]:
    """Start worker and console."""
    servers = database.url.get_secret_value(), valkey_url
    async with open_fleet(jobs_programs, tmp_path_factory.mktemp("fleet"), servers, shared_sessions) as opened:
        yield opened


@pytest.fixture(scope="package")
async def all_people(chromium: Browser, fleet: Fleet) -> People:
    """Remember who has logged in, for all tests."""
    return People(chromium, fleet.url)


@pytest.fixture(scope="package")
async def found(fleet: Fleet) -> Found:
    """Find what links lead to."""
    async with browsing(fleet.url, JANE) as browser:
        return await follow_links(browser)


@pytest.fixture
async def people(all_people: People) -> AsyncIterator[People]:
    """Fail if a script has failed, a policy was violated or a dialog has come up in a page of the test."""
    all_people.faults.clear()
    yield all_people
    await all_people.leave()
    assert all_people.faults == []


@pytest.fixture
def open_page(people: People) -> OpenPage:
    """Return what opens a page; it is closed after the test."""
    return people.open


@pytest.fixture
async def jane(open_page: OpenPage) -> Page:
    """Open the overview for an operator."""
    return await open_page(token=JANE)


@pytest.fixture
async def rob(open_page: OpenPage) -> Page:
    """Open the overview for a reader."""
    return await open_page(token=ROB)


@pytest.fixture(scope="package")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Install axe-core in its locked version; return its source."""
    require("npm")
    folder = tmp_path_factory.mktemp("axe")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(Path(__file__).parent / "node" / name, folder)
    subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=folder, check=True, capture_output=True)
    return (folder / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8")
