"""Open pages are told of changes, and servers are asked once for all of them, or not at all."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import async_sessionmaker

from arqonce.console import live
from arqonce.console import poll as polls
from arqonce.console.poll import Poll, Reading, Servers
from arqonce.console.shared import Shared
from arqonce.database.settings import DatabaseSettings
from arqonce.overview.status import Ledger
from tests.arqonce.console.conftest import Browser
from tests.conftest import wait_until_async


class _Servers:
    """Stands for both servers: a reading says how many there were before it."""

    def __init__(self) -> None:
        self.readings = 0
        self.fails = False
        self.begun, self.goes_on = asyncio.Event(), asyncio.Event()
        self.goes_on.set()

    async def read(self) -> Reading:
        """Read."""
        self.readings += 1
        number = self.readings
        self.begun.set()
        await self.goes_on.wait()
        if self.fails:
            raise RuntimeError
        return Reading(at=datetime.now(UTC), ledger=Ledger(), queues=None, redis_trouble=f"reading {number}")


@asynccontextmanager
async def _polling() -> AsyncIterator[tuple[_Servers, Poll]]:
    servers = _Servers()
    poll = Poll(servers.read, every=timedelta(milliseconds=10))
    try:
        yield servers, poll
    finally:
        await poll.close()


@asynccontextmanager
async def _listening(browser: Browser) -> AsyncIterator[aiohttp.StreamReader]:
    async with browser.http.get(f"{browser.url}/live") as response:
        assert (response.status, response.content_type) == (200, "text/event-stream")
        yield response.content


async def _next_version(events: aiohttp.StreamReader) -> str:
    async with asyncio.timeout(10):
        while True:
            line = (await events.readline()).decode()
            if line.startswith("data: "):
                return line.removeprefix("data: ").strip()


async def test_a_page_is_told_of_a_change(jane: Browser, rob: Browser) -> None:
    """At first which version there is, then each time that another one has read something else; all the same."""
    async with _listening(rob) as events, _listening(jane) as others:
        first = await _next_version(events), await _next_version(others)
        await jane.send("/queues/pause", queue="arq:queue", reason="x", length="1h")
        second = await _next_version(events), await _next_version(others)

    assert len({*first}) == len({*second}) == 1
    assert first != second
    assert f'data-version="{second[0]}"' in (await rob.get("/")).body


async def test_a_change_by_others_is_told(rob: Browser, redis: Redis) -> None:
    """Whoever has changed it."""
    async with _listening(rob) as events:
        first = await _next_version(events)
        await redis.zadd("arq:queue", {"job": 1.0})

        assert await _next_version(events) != first


async def test_nobody_is_told_without_a_log_in(nobody: Browser) -> None:
    """A page is not shown either."""
    answer = await nobody.get("/live", headers={"Sec-Fetch-Dest": "empty"})

    assert answer.status == 401


async def test_there_is_room_for_a_number_of_pages(rob: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others are told so; and who leaves makes room."""
    monkeypatch.setattr(live, "MOST_VIEWERS", 1)
    async with _listening(rob) as events:
        await _next_version(events)
        refused = await rob.get("/live")

    async def is_room() -> bool:
        async with rob.http.get(f"{rob.url}/live") as response:
            return response.status == 200

    assert refused.status == 503
    await wait_until_async(is_room, 20)


async def test_nobody_takes_the_places_of_others(rob: Browser, jane: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    """One person's pages have a limit of their own."""
    monkeypatch.setattr(live, "MOST_OF_ONE", 1)
    async with _listening(rob) as events:
        await _next_version(events)
        refused = await rob.get("/live")

        async with _listening(jane) as others:
            assert await _next_version(others)

    assert refused.status == 503


async def test_all_who_ask_share_an_examination() -> None:
    """Many who ask for it at once cost as much as one; later it is made anew."""
    now, asked = [0.0], list[float]()
    shared = Shared[float](timedelta(seconds=2), lambda: now[0])

    async def examine() -> float:
        asked.append(now[0])
        await asyncio.sleep(0)
        return now[0]

    first = await asyncio.gather(*(shared.get(examine) for _ in range(50)))
    now[0] = 2.0
    second = await shared.get(examine)

    assert (set(first), second, asked) == ({0.0}, 2.0, [0.0, 2.0])


async def test_all_pages_share_a_reading() -> None:
    """However many look at the same moment."""
    async with _polling() as (servers, poll):
        readings = await asyncio.gather(*(poll.latest() for _ in range(50)))

        assert {reading.redis_trouble for reading in readings} == {"reading 1"}
        assert servers.readings <= 2


async def test_a_page_that_nobody_looks_at_asks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers are asked while somebody watches, and not much longer; the next page begins anew."""
    monkeypatch.setattr("arqonce.console.poll._AFTER_LAST", timedelta(0))
    async with _polling() as (servers, poll):
        assert servers.readings == 0
        with poll.watched():
            for _ in range(5):
                await poll.next()
        task = poll._task
        assert task is not None
        await asyncio.wait_for(task, 10)
        asked = servers.readings

        await poll.fresh()

        assert servers.readings == asked + 1


async def test_a_reading_that_fails_is_told_to_who_waits() -> None:
    """Nobody waits for ever, and the next page asks again."""
    async with _polling() as (servers, poll):
        servers.fails = True
        with pytest.raises(RuntimeError):
            await poll.latest()
        servers.fails = False

        assert (await poll.latest()).redis_trouble == "reading 2"


async def test_nobody_sees_what_was_read_before_a_change() -> None:
    """A reading that is under way when somebody changes something is not shown to who asks afterwards."""
    async with _polling() as (servers, poll):
        servers.goes_on.clear()
        before = asyncio.create_task(poll.latest())
        await servers.begun.wait()
        poll.ask_anew()
        after = asyncio.create_task(poll.latest())
        await asyncio.sleep(0)
        servers.goes_on.set()

        found = [(await reading).redis_trouble for reading in (before, after)]

    assert found == ["reading 1", "reading 2"]


@pytest.mark.parametrize(("trouble", "tested"), [(None, [False, True, True]), ("its disk is full", [False] * 3)])
async def test_whether_it_can_be_written_to_is_asked_at_times(
    monkeypatch: pytest.MonkeyPatch, redis: Redis, database: DatabaseSettings, trouble: str | None, tested: list[bool]
) -> None:
    """It costs more than the rest; while there is trouble, each reading asks: its end is seen at once."""
    found: list[bool] = []

    async def read_ledger_state(_looks: object, _database: object, *, is_tested: bool) -> Ledger:
        await asyncio.sleep(0)
        found.append(is_tested)
        return Ledger(trouble=trouble)

    monkeypatch.setattr(polls, "read_ledger_state", read_ledger_state)
    servers = Servers(redis, "redis://", ["arq:queue"], async_sessionmaker(), database)
    for _ in tested:
        await servers.read()

    assert found == tested
