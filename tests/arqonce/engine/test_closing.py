"""The end of an engine, in the test's own process."""

import asyncio
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from arqonce.engine import closing


async def _for_ever() -> None:
    await asyncio.Event().wait()


async def test_a_silent_redis_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the hooks that follow have no time left, and the process is ended with an exit code of its own."""
    monkeypatch.setattr(closing, "_STEP_LIMIT", timedelta(milliseconds=150))
    monkeypatch.setattr(closing, "_SILENT_LIMIT", timedelta(milliseconds=1))
    recorder = SimpleNamespace(settle=_for_ever, cancel=lambda: None)
    runs: Any = SimpleNamespace(running=SimpleNamespace(tasks={}), recorder=recorder)
    end = closing.Closing(runs, SimpleNamespace(resign=_for_ever))  # type: ignore[arg-type] # all that it needs
    before = end.redis_step()

    await end.close(None)

    assert (before, end.redis_step()) == (0.15, 0.001)
