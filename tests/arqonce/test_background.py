"""What runs beside the jobs ends with them."""

import asyncio
from datetime import timedelta

import pytest

from arqonce import background


async def test_a_lost_cancellation_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the end of a worker would wait for ever for its relay."""
    monkeypatch.setattr(background, "_AGAIN", timedelta(milliseconds=20))
    cancelled = 0

    async def lose_the_first() -> None:
        nonlocal cancelled
        while cancelled < 2:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled += 1

    async with asyncio.timeout(5), background.running(lose_the_first(), name="stubborn"):
        await asyncio.sleep(0)

    assert cancelled == 2
