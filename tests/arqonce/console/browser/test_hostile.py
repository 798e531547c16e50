"""Every page with hostile data, in a browser that would run a script if there were one."""

from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser, expect
from pydantic import SecretStr
from redis.asyncio import Redis

from arqonce.console.settings import ConsoleSettings, Settings
from arqonce.database.engine import open_database
from arqonce.database.settings import DatabaseSettings
from arqonce.settings.worker import QueueSettings, WorkerSettings
from tests.arqonce.console.browser.people import NARROW, People
from tests.arqonce.console.browser.visits import TOO_WIDE
from tests.arqonce.console.conftest import JANE, TOKENS, serving
from tests.arqonce.console.test_pages import PAGES, QUERIES, write_hostile

_FOREIGN = "main :is(script, img, iframe, object, style, link), body > script, [onerror], [onclick], [style]"


@pytest.fixture
async def hostile(
    chromium: Browser, own_database: DatabaseSettings, valkey_url: str
) -> AsyncIterator[tuple[str, People]]:
    """Serve a console on databases of its own that are full of hostile text; yield its URL and who looks at it."""
    redis_url = valkey_url.removesuffix("/0") + "/1"
    settings = Settings(
        own_database,
        QueueSettings(url=SecretStr(redis_url)),
        WorkerSettings(),
        ConsoleSettings(port=0, tokens=TOKENS),
    )
    async with (
        Redis.from_url(redis_url) as redis,
        open_database(own_database, pool_size=1) as sessions,
        serving(settings) as url,
    ):
        await write_hostile(redis, sessions)
        people = People(chromium, url)
        yield url, people
        await people.leave()
        await redis.flushdb()


async def test_hostile_text_is_but_text(hostile: tuple[str, People]) -> None:
    """No script runs, no dialog comes up, no element is there that is not ours, and no page is wider than its screen.

    Also after the script of the page has renewed it.
    """
    url, people = hostile
    page = await people.open("/", token=JANE, viewport=NARROW)
    wrong = {}

    for path in PAGES:
        await page.goto(f"{url}{path}?{QUERIES[path]}" if path in QUERIES else url + path)
        await expect(page.get_by_role("heading", level=1)).to_be_visible()
        await page.evaluate("etag = null; renew()")
        found = await page.locator(_FOREIGN).evaluate_all("(all) => all.map((one) => one.outerHTML)")
        if found or (found := await page.evaluate(TOO_WIDE)):
            wrong[path] = found

    assert wrong == {}
    assert people.faults == []
