"""The faults of one run and their times: a pure function of the seed. Starts nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from random import Random
from types import MappingProxyType


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One kind of fault: its mean interval and its longest duration, in seconds."""

    every: float
    longest: float = 0.0


FAULTS: Mapping[str, Fault] = MappingProxyType(
    {
        "kill": Fault(every=2),
        "term": Fault(every=6),
        "stop": Fault(every=7, longest=7),
        "valkey-kill": Fault(every=9, longest=2),
        "valkey-wipe": Fault(every=17, longest=2),
        "postgres-stop": Fault(every=13, longest=2),
        "cut-valkey": Fault(every=1.1),
        "cut-postgres": Fault(every=1.7),
        "delay": Fault(every=8, longest=2),
        "black-hole": Fault(every=11, longest=3),
        "lock": Fault(every=23, longest=7),
        "exhaust": Fault(every=19, longest=4),
        "hostile": Fault(every=1),
        "pg-failover": Fault(every=27, longest=8),
        "pg-read-only": Fault(every=23, longest=5),
        "pg-disk-full": Fault(every=31, longest=5),
        "valkey-failover": Fault(every=21, longest=6),
        "valkey-demote": Fault(every=18, longest=3),
        "standstill": Fault(every=20, longest=13),
        "pause": Fault(every=7, longest=4),
        "poison": Fault(every=0),
        "duplicates": Fault(every=0),
        "careless": Fault(every=0),
        "functions": Fault(every=0),
        "schedules": Fault(every=0),
        "limits": Fault(every=0),
    }
)
"""All faults by name. The last six are kinds of submitted jobs and have no times."""

_FIRST = 1.0
"""Seconds before the first fault in a run that is too short for it, so that there are jobs to hit."""

HARMLESS = frozenset(
    {
        "valkey-wipe",
        "postgres-stop",
        "exhaust",
        "hostile",
        "pg-failover",
        "pg-read-only",
        "pg-disk-full",
        "valkey-demote",
        "pause",
        "poison",
        "duplicates",
        "careless",
        "functions",
        "schedules",
        "limits",
    }
)
"""Faults that must not cost an unaffected job an attempt: outages, and the doings of other jobs and clients.

The other faults end attempts by their nature: a worker was killed or stopped, a connection was lost while the server
was available, a lock was held, or a lease could not be renewed.
"""

MARKER = "Quokka"
"""Part of every name and, in lower case, of every e-mail that a run invents, so that they can be found in logs."""


class Route(Enum):
    """How a job reaches the queue."""

    DIRECT = "direct"
    OUTBOX = "outbox"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One run. ``drain`` is how long the queue may take to become empty after the faults."""

    seed: int
    jobs: int
    duration: timedelta
    faults: frozenset[str] = frozenset(FAULTS)
    drain: timedelta = timedelta(seconds=60)
    workers: int = 3
    lease: timedelta = timedelta(seconds=3)
    routes: tuple[Route, ...] = tuple(Route)
    mutant: str | None = None
    """Name of the mutant in ``chaos.mutants`` that runs as the worker; ``None`` for the real worker."""

    def random(self, purpose: str) -> Random:
        """Return a random generator for one purpose, so that the parts of a run do not influence each other."""
        return Random(f"{self.seed}:{purpose}")


@dataclass(frozen=True, order=True)
class Occurrence:
    """One fault and its time, in seconds after the start. ``number`` counts the faults of its kind."""

    at: float
    fault: str
    number: int


def schedule(plan: Plan) -> list[Occurrence]:
    """Return all faults of the run, ordered by time. Each ends before the duration does."""
    return sorted(
        Occurrence(at, name, number)
        for name in FAULTS
        if name in plan.faults and FAULTS[name].every
        for number, at in enumerate(_times(FAULTS[name], plan, plan.random(f"times:{name}")))
    )


def _times(fault: Fault, plan: Plan, random: Random) -> list[float]:
    """Spread the occurrences. A requested kind of fault comes at least once, even in a short run."""
    last = plan.duration.total_seconds() - fault.longest
    times = [min(fault.every * random.uniform(0.3, 1.0), max(_FIRST, last))]
    while (following := times[-1] + fault.every * random.uniform(0.5, 1.5)) < last:
        times.append(following)
    return times
