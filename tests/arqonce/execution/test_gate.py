"""The gate alone: what callers hear who share a probe. No server is needed."""

import asyncio
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, cast

import pytest

from arqonce.execution import gate as module
from arqonce.execution.gate import DatabaseGate


async def test_a_probe_that_is_cancelled_answers_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """The job that has asked is aborted, in an outage: those who share its probe ask themselves, and do not count."""
    probes = list["asyncio.Future[None]"]()

    async def probe(_session: object) -> None:
        probes.append(asyncio.get_running_loop().create_future())
        await probes[-1]

    monkeypatch.setattr(module, "require_written", probe)
    gate = DatabaseGate(cast("Any", nullcontext))
    earlier, aborted, sharing = [asyncio.create_task(gate.check()) for _ in range(3)]

    async with asyncio.timeout(5):
        await _until(lambda: len(probes) == 1)
        probes[0].set_result(None)
        await _until(lambda: len(probes) == 2)
        aborted.cancel()
        await _until(lambda: len(probes) == 3 or sharing.done())
        if not probes[-1].done():
            probes[-1].set_exception(ConnectionRefusedError())

    assert (await earlier, await sharing) == (True, False)


async def _until(is_so: Callable[[], bool]) -> None:
    while not is_so():
        await asyncio.sleep(0)
