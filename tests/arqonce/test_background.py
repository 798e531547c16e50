"""What runs beside the jobs ends with them."""

import asyncio
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

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

    async with asyncio.timeout(5), background.running(lose_the_first, name="stubborn"):
        await asyncio.sleep(0)

    assert cancelled == 2


async def test_what_fails_is_logged_and_begins_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else nobody would do its work any more, in silence; and the end of the process would fail with its error."""
    monkeypatch.setattr(background, "_AGAIN", timedelta(milliseconds=1))
    begun: list[asyncio.Event] = [asyncio.Event(), asyncio.Event()]

    async def fail_once_and_at_the_end() -> None:
        first, second = begun
        if not first.is_set():
            first.set()
            raise LookupError
        second.set()
        try:
            await asyncio.sleep(60)
        finally:
            raise KeyError

    with capture_logs() as lines:
        async with asyncio.timeout(5), background.running(fail_once_and_at_the_end, name="frail"):
            await begun[1].wait()

    assert [(line["task"], type(line["exc_info"])) for line in lines] == [("frail", LookupError), ("frail", KeyError)]
