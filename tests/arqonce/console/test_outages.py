"""A server that is away, in both ways: pages say so, each in a bounded time, and recover by themselves."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.commands.status_view import complaints_of, json_of
from arqonce.console.settings import Settings
from arqonce.embedded import ValkeyServer
from arqonce.overview.status import open_status
from tests.arqonce.console.conftest import JANE, Answer, Browser, browsing, serving
from tests.conftest import wait_until, wait_until_async
from tests.faults.conftest import postgres_proxy, redis_proxy, valkey  # noqa: F401 - fixtures
from tests.faults.proxy import Proxy

_PAGES = ("/", "/queues", "/queue?name=arq:queue", "/workers", "/audit", "/doctor", "/queues/pause?queue=arq:queue")

_BOUND = 15.0
"""Seconds: an answer is given up after 10, and its connections are closed."""


@asynccontextmanager
async def _through(settings: Settings, **environment: str) -> AsyncIterator[Browser]:
    """Serve a console that reaches its servers through a proxy."""
    database, queue = settings.database, settings.queue
    if url := environment.get("DATABASE_URL"):
        database = database.model_copy(update={"url": SecretStr(url)})
    if url := environment.get("REDIS_URL"):
        queue = queue.model_copy(update={"url": SecretStr(url)})
    async with (
        serving(replace(settings, database=database, queue=queue)) as served,
        browsing(served, JANE) as browser,
    ):
        yield browser


async def _answers(browser: Browser) -> dict[str, Answer]:
    found = {}
    for page in _PAGES:
        began = time.monotonic()
        answer = await browser.get(page)
        assert "Traceback" not in answer.body
        assert time.monotonic() - began < _BOUND, page
        found[page] = answer
    return found


async def _statuses(browser: Browser) -> dict[str, int]:
    return {page: answer.status for page, answer in (await _answers(browser)).items()}


async def _all_are_well(browser: Browser) -> bool:
    return set((await _statuses(browser)).values()) == {200}


@pytest.mark.parametrize("way", ["closed", "silent"])
async def test_postgresql_is_away(
    console_settings: Settings,
    redis: Redis,
    sessions: async_sessionmaker[AsyncSession],
    postgres_proxy: Proxy,  # noqa: F811 - the fixture
    way: str,
) -> None:
    """Pages of Redis go on; those that need PostgreSQL say 503; the log-in holds."""
    assert (await redis.ping(), sessions is not None) == (True, True)
    async with _through(console_settings, **postgres_proxy.environment) as browser:
        before = await _statuses(browser)
        postgres_proxy.is_closed = way == "closed"
        postgres_proxy.cut() if way == "closed" else postgres_proxy.silence()
        said = await browser.until("/", "PostgreSQL is away: no job starts")
        during = await _answers(browser)
        postgres_proxy.heal()

        async def are_well() -> bool:
            return await _all_are_well(browser)

        await wait_until_async(are_well, 30)

    assert set(before.values()) == {200}
    assert "Waiting" in said.page.text
    assert {page: answer.status for page, answer in during.items() if answer.status != 200} == {"/audit": 503}
    assert ("is DATABASE_URL right? This page" in during["/audit"].page.text) == (way == "closed")


async def test_redis_is_full(
    console_settings: Settings,
    sessions: object,
    valkey: ValkeyServer,  # noqa: F811 - the fixture
) -> None:
    """It answers, and no job starts: console and status say so, with the cure, and show what there is."""
    async with Redis.from_url(valkey.url) as full:
        await full.config_set("maxmemory", "1")
        queue = console_settings.queue.model_copy(update={"url": SecretStr(valkey.url)})
        async with _through(console_settings, REDIS_URL=valkey.url) as browser, open_status(queue, ["q"]) as reader:
            overview, found = await browser.get("/"), await reader.read()
            await full.config_set("maxmemory", "0")
            after = await reader.read()

    assert sessions is not None
    assert "Redis takes no writes: no job starts" in overview.page.text
    assert "is full: raise its maxmemory" in overview.page.text
    assert ["is full: raise its maxmemory" in said for said in complaints_of(found)] == [True]
    assert "is full: raise its maxmemory" in json_of(found)["redis"]
    assert (complaints_of(after), "redis" in json_of(after)) == ([], False)


@pytest.mark.parametrize("way", ["closed", "silent"])
async def test_redis_is_away(
    console_settings: Settings,
    redis: Redis,
    sessions: async_sessionmaker[AsyncSession],
    redis_proxy: Proxy,  # noqa: F811 - the fixture
    way: str,
) -> None:
    """Pages of PostgreSQL go on, and a pause can be recorded, which workers learn later."""
    assert (await redis.ping(), sessions is not None) == (True, True)
    async with _through(console_settings, **redis_proxy.environment) as browser:
        before = await _statuses(browser)
        redis_proxy.is_closed = way == "closed"
        redis_proxy.cut() if way == "closed" else redis_proxy.silence()
        said = await browser.until("/", "Redis is away: no job starts")
        during = await _statuses(browser)
        paused = await browser.send("/queues/pause", queue="arq:queue", reason="x", length="1h")
        redis_proxy.heal()

        async def are_well() -> bool:
            return await _all_are_well(browser)

        await wait_until_async(are_well, 30)

    assert set(before.values()) == {200}
    assert "Dead letters" in said.page.text
    assert set(during.values()) <= {200, 503}
    assert (during["/"], during["/audit"], during["/queues"], during["/workers"]) == (200, 200, 200, 200)
    assert (paused.status, "workers do not know yet" in paused.page.text) == (200, True)


async def test_busy_pages_are_no_outage(
    console_settings: Settings, redis: Redis, sessions: async_sessionmaker[AsyncSession]
) -> None:
    """Pages whose statements take too long say so; the overview, which has a connection of its own, goes on."""
    assert await redis.ping()
    limited = console_settings.database.model_copy(update={"statement_timeout": timedelta(seconds=2)})
    settings = replace(console_settings, database=limited)
    async with serving(settings) as served, browsing(served, JANE) as jane, sessions() as blocker:
        await blocker.execute(text("LOCK TABLE arqonce.audit"))
        asked = [asyncio.create_task(jane.get("/audit")) for _ in range(8)]

        async def are_waiting() -> bool:
            async with sessions() as session:
                waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'arqonce.audit'::regclass"
                return bool(await session.scalar(text(waiting)))

        await wait_until_async(are_waiting, 10)
        overview = await jane.get("/")
        answers = await asyncio.gather(*asked)
        await blocker.rollback()

    assert {answer.status for answer in answers} == {503}
    assert {answer.page.text.partition(" \N{EN DASH} ")[0] for answer in answers} <= {
        "PostgreSQL takes too long",
        "The console is busy",
    }
    assert "is away" not in overview.page.text


async def test_a_server_that_is_silent_is_named(jane: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection to PostgreSQL that takes more than its 5 s is no answer that takes 10 s."""

    async def time_out(*_: object, **__: object) -> None:
        raise TimeoutError

    monkeypatch.setattr("arqonce.console.pages.audit.page_of_acts", time_out)
    answer = await jane.get("/audit")

    assert (answer.status, "PostgreSQL is away" in answer.page.text, "10 s" in answer.page.text) == (503, True, False)


async def test_an_outage_that_is_over_is_not_shown(
    console_settings: Settings,
    redis: Redis,
    sessions: async_sessionmaker[AsyncSession],
    postgres_proxy: Proxy,  # noqa: F811 - the fixture
) -> None:
    """A connection that was closed meanwhile is replaced: nobody sees an error of a server that answers."""
    assert (await redis.ping(), sessions is not None) == (True, True)
    async with _through(console_settings, **postgres_proxy.environment) as browser:
        before = await browser.get("/audit")
        postgres_proxy.cut()
        wait_until(lambda: not postgres_proxy.links, 10)
        after = await browser.get("/audit")

    assert (before.status, after.status) == (200, 200)
