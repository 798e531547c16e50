"""Lets runs that only wait for others have no slot meanwhile (``slots``)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from arqonce.engine.runs import Runs


@asynccontextmanager
async def step_aside(runs: Runs) -> AsyncIterator[None]:
    """Let other runs have the slot of the current one during the block. A cancelled run does not wait for a slot.

    In the block it may only wait: what a slot stands for, such as a connection, is not its own.
    """
    task = asyncio.current_task()
    await runs.slots.wait_for_place()
    run = runs.running.run_of(task)
    if run is None:  # it has been abandoned
        runs.slots.pass_place()
        yield
        return
    runs.slots.step_aside(run)
    runs.use_free_slots()
    try:
        yield
    except asyncio.CancelledError:
        raise
    except BaseException:
        await runs.slots.step_back(run)
        raise
    await runs.slots.step_back(run)
