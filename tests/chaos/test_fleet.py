"""The supervisor must start what ends, and tell an end of its own making from any other."""

import asyncio
import os
import signal
import sys
from pathlib import Path
from random import Random

import pytest

from chaos.fleet import Fleet

pytestmark = pytest.mark.usefixtures("starts_processes")

_WORKER = """
import os, pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
pathlib.Path(os.environ["WORKER_HEALTH_FILE"]).touch()
time.sleep(60)
"""
"""Stands for a worker: it is ready at once and ends on SIGTERM."""


async def _run(fleet: Fleet, hit: signal.Signals | None) -> None:
    """Start the fleet, hit one process, wait until it was replaced, and stop all."""
    supervisor = asyncio.create_task(fleet.run())
    async with asyncio.timeout(20):
        await fleet.wait_until_ready()
        victim = fleet.pick(Random(1))
        assert victim is not None
        if hit is None:
            os.kill(victim.process.pid, signal.SIGABRT)
        else:
            victim.send(hit)
        while not fleet.ends:
            await asyncio.sleep(0.01)
        await fleet.wait_until_ready()
        fleet.stop()
        await supervisor


@pytest.mark.parametrize(("hit", "told"), [(signal.SIGKILL, "killed"), (signal.SIGTERM, "stopped")])
async def test_what_we_end_is_started_again(tmp_path: Path, hit: signal.Signals, told: str) -> None:
    """And is no breach."""
    with Fleet.open([sys.executable, "-c", _WORKER], {}, tmp_path, size=2) as fleet:
        await _run(fleet, hit)

    assert set(fleet.ends) == {told, "stopped"}
    assert fleet.ends.total() == 3


async def test_an_end_that_nobody_asked_for_is_told_in_full(tmp_path: Path) -> None:
    """With the exit code and the log."""
    with Fleet.open([sys.executable, "-c", _WORKER], {}, tmp_path, size=2) as fleet:
        await _run(fleet, None)

    (unasked,) = set(fleet.ends) - {"stopped"}
    assert unasked.startswith("exit code -6 for no reason of ours: ")
    assert ".log" in unasked


async def test_a_fleet_that_is_left_leaves_no_process(tmp_path: Path) -> None:
    """Also a stopped process, which hears no polite signal."""
    with Fleet.open([sys.executable, "-c", _WORKER], {}, tmp_path, size=2) as fleet:
        supervisor = asyncio.create_task(fleet.run())
        async with asyncio.timeout(20):
            await fleet.wait_until_ready()
        workers = fleet.ready
        workers[0].send(signal.SIGSTOP)
        supervisor.cancel()

    assert all(worker.process.poll() is not None for worker in workers)
