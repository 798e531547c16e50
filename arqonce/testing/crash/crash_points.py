"""Kills the worker at every point of a job and compares the end with a clean run: the fixture ``crash_points``.

    async def test_jane_is_stored_once_whatever_crashes(crash_points: CrashPoints) -> None:
        await crash_points.prove(CreateUser(name="Jane"))

For each point in turn a real worker on real servers claims the job and dies there, without any cleaning up; another
worker gets the job when the lease of the first has ended, and what it leaves behind must be what a run without a crash
does. POSIX only: workers are forked.
"""

import time
from collections.abc import Awaitable, Callable, Collection
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from arqonce.payloads import AnyPayload
from arqonce.spec import Registry
from arqonce.testing.crash.end_state import State
from arqonce.testing.crash.forks import ForkError, Forks, Load
from arqonce.testing.crash.trials import Case, CrashPointError, Run, Search
from arqonce.testing.crash.worlds import MOST, Servers, Worlds

__all__ = ["CrashPointError", "CrashPoints", "ForkError", "Proof", "Servers"]


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What was proven."""

    points: tuple[str, ...]
    """Every point at which the worker was killed, and the job still ended as in the clean run."""

    unreached: tuple[str, ...]
    """Points of one run that the runs which were to crash there passed by: an answer that is there already is not
    waited for, and a script or a connection is new to a server only once."""

    state: State
    """The end of the clean run."""

    took: timedelta
    """From the first run to the last."""


class CrashPoints:
    """Proves jobs. Made by the fixture of this name."""

    def __init__(self, forks: Forks, worlds: Worlds, registry: Registry, *, at_once: int = MOST) -> None:
        """Prove jobs of ``registry``, at ``at_once`` points at the same time: most of it is waiting for leases."""
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
        prepare: Callable[[], None] | None = None,
        is_promised: bool = False,
        is_dead: bool = False,
        ignore: Collection[str] = (),
    ) -> Proof:
        """Kill the worker at each point of this job in turn; return the points if the end is always the same.

        ``others``, at most three, are queued with it, in this order, before the worker starts: jobs of one kind whose
        handler has a ``batch`` run together then.

        Compared are all tables, all keys in Redis and all files that the job leaves in the worker's folder; times,
        counters of attempts and the numbers of ids are not, nor are columns and fields of JSON named in ``ignore``.
        ``given`` writes what shall be there before the job. ``prepare`` runs in each worker before it starts, to put a
        fake in the place of another service: one that appends to a file in the current folder makes its calls count.
        The worker is another process: it finds registry entries and ``prepare`` by their names; the registry is that of
        the fixture ``jobs_registry`` unless another is given. A job that ``is_promised`` comes through the outbox; one
        that ``is_dead`` is to end as a dead letter, which is an error of every other.

        Raises:
            CrashPointError: a point at which it is not, or the clean run itself leaves something unfinished, or a dead
                letter that is not expected.
            ForkError: the worker cannot load the job, or does not start.
        """
        case = Case(
            payloads=(payload, *others),
            load=Load(self._registry if registry is None else registry, prepare),
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
