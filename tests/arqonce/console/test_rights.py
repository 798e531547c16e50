"""The console with an operator's rights alone, as ``deploy/`` has them: every page, and each act."""

import asyncio
import json
import time
from dataclasses import replace

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.connection.presence import LiveWorker, announce
from arqonce.connection.trend import nothing_counted
from arqonce.console.pages import NAVIGATION
from arqonce.console.settings import Settings
from tests.arqonce.console.conftest import JANE, browsing, serving
from tests.lines import show
from tests.rights import Rights

pytestmark = pytest.mark.parametrize("rights", ["least rights"], indirect=True)

WORKER = LiveWorker("0123456789abcdef", "host", 17, ["arq:queue"])


async def _obey(redis: Redis) -> None:
    while (order := (await show(redis, WORKER, {"state": "working", "running": 0})).order) is None:
        await asyncio.sleep(0.05)
    await show(redis, WORKER, {"state": "drained" if order else "working", "running": 0})


async def test_an_operator_s_rights_suffice(
    console_settings: Settings, rights: Rights, redis: Redis, sessions: async_sessionmaker[AsyncSession]
) -> None:
    """Nothing is missing on the overview, no page fails, and pauses and orders work."""
    assert sessions is not None
    await announce(redis, WORKER)
    await show(redis, WORKER, {"state": "working", "running": 0})
    minute = int(time.time() // 60) - 1
    await redis.set(f"arqonce:trend:{minute}:arq:queue", json.dumps([*nothing_counted(), 4711, 0, 5]))
    settings = replace(
        console_settings,
        database=console_settings.database.model_copy(update={"url": SecretStr(rights.operator_database)}),
        queue=console_settings.queue.model_copy(update={"url": SecretStr(rights.operator_redis)}),
    )
    async with serving(settings) as url, browsing(url, JANE) as browser:
        pages = {entry.path: await browser.get(entry.path) for entry in NAVIGATION}
        paused = await browser.send("/queues/pause", queue="arq:queue", reason="x", length="1h")
        resumed = await browser.send("/queues/resume", queue="arq:queue")
        obeying = asyncio.create_task(_obey(redis))
        drained = await browser.send("/workers/drain", id=WORKER.id)
        await obeying

    assert {path: answer.status for path, answer in pages.items()} == dict.fromkeys(pages, 200)
    assert "not seen" not in pages["/"].page.text
    assert "4,711 at most" in pages["/"].body  # the charts
    assert [answer.status for answer in (paused, resumed, drained)] == [200, 200, 200]
    assert "workers do not know yet" not in paused.page.text
    assert "takes no more jobs" in drained.page.text
