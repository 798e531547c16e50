"""Kills the worker at every point of a job and compares the end with a clean run: the fixture ``crash_points``.

    async def test_jane_is_stored_once_whatever_crashes(crash_points: CrashPoints) -> None:
        await crash_points.prove(CreateUser(name="Jane"))

For each point, a real worker on real servers claims the job and dies there without any cleanup. Another worker claims
the job when the first one's lease has ended. The state that it leaves must be that of a run without a crash. POSIX
only, because workers are forked.
"""

import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from arqonce.payloads import AnyPayload
from arqonce.resources import Resource
from arqonce.spec import Registry
from arqonce.testing.crash.end_state import State
from arqonce.testing.crash.forks import ForkError, Forks, Load
from arqonce.testing.crash.trials import Case, CrashPointError, Run, Search
from arqonce.testing.crash.worlds import MOST, Servers, Worlds

__all__ = ["CrashPointError", "CrashPoints", "ForkError", "Proof", "Servers"]


@dataclass(frozen=True, kw_only=True)
class Proof:
    """The result of a proof."""

    points: tuple[str, ...]
    """The points at which the worker was killed and the job still ended as in the clean run."""

    unreached: tuple[str, ...]
    """Points that the runs that were to crash there did not reach: a job does not wait for an answer that has already
    arrived, and a script or a connection is new to a server only once."""

    state: State
    """The state after the clean run."""

    took: timedelta
    """Time from the begin of the first run to the end of the last."""


class CrashPoints:
    """Proves jobs. Created by the fixture ``crash_points``."""

    def __init__(self, forks: Forks, worlds: Worlds, registry: Registry, *, at_once: int = MOST) -> None:
        """Prove jobs of ``registry``, ``at_once`` points at a time, because most of the time is waiting for leases."""
        self._forks = forks
        self._registry = registry
        self._worlds = worlds
        self._at_once = at_once

    async def prove(  # noqa: PLR0913 - what a job may depend on
        self,
        payload: AnyPayload,
        *others: AnyPayload,
        registry: Registry | None = None,
        given: Callable[[AsyncSession], Awaitable[object]] | None = None,
        resources: Mapping[Resource[Any], object] | None = None,
        prepare: Callable[[], None] | None = None,
        is_promised: bool = False,
        is_dead: bool = False,
        ignore: Collection[str] = (),
    ) -> Proof:
        """Kill the worker at each point of this job; return the points if the job always ends in the same state.

        ``others``, at most three, are queued with it, in this order, before the worker starts. Jobs of one kind whose
        handler has a ``batch``, or shares transactions, then run together.

        Compares all tables, all keys in Redis and all files that the job leaves in the worker's folder. Ignores times,
        counters of attempts, the numbers of ids, and the columns and JSON fields named in ``ignore``.

        ``given`` writes rows that must exist before the job. ``resources`` are given to the jobs in place of those of
        the registry, as in ``run_job``, to each worker anew. Others are opened. ``prepare`` runs in
        each worker before it starts, to replace anything else. If a fake appends to a file in the current folder, its
        calls are compared, too. The worker is another process, which finds registry entries, the classes of fakes and
        ``prepare`` by their names. ``registry`` is by default that of the fixture ``jobs_registry``; its schedules
        promise nothing here. A job that ``is_promised`` is enqueued through the outbox. One that ``is_dead`` must end
        as a dead letter, which is an error for all others.

        Raises:
            CrashPointError: a crash at some point changes the end, or the clean run itself leaves something unfinished
                or an unexpected dead letter.
            ForkError: the worker cannot load the job, or does not start.
        """
        case = Case(
            payloads=(payload, *others),
            load=Load(self._registry if registry is None else registry, prepare, resources or {}),
            given=given,
            is_promised=is_promised,
            is_dead=is_dead,
            ignore=ignore,
        )
        started = time.monotonic()
        async with AsyncExitStack() as stack:
            stack.enter_context(self._forks.heard())
            first = await stack.enter_async_context(self._worlds.open(1))
            clean, points = await Run(self._forks, first, case).count()
            more = range(2, min(self._at_once, len(points)) + 1)
            worlds = [first, *[await stack.enter_async_context(self._worlds.open(number)) for number in more]]
            proven, unreached = await Search(self._forks, case, clean, points).run(worlds)
        took = timedelta(seconds=time.monotonic() - started)
        return Proof(points=tuple(proven), unreached=tuple(unreached), state=clean, took=took)
