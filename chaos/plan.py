"""What one run does and when: a pure function of its seed. Starts nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from random import Random
from types import MappingProxyType


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One kind of fault: how often it comes, in seconds on average, and how long one lasts at most."""

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
        "poison": Fault(every=0),
        "duplicates": Fault(every=0),
        "careless": Fault(every=0),
    }
)
"""All faults by name. The last three are part of what is submitted and have no times of their own."""

_FIRST = 1.0
"""Seconds before the first fault in a run that is too short for it: there must be jobs to hit."""

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
        "poison",
        "duplicates",
        "careless",
    }
)
"""Faults that no attempt of an innocent job may be counted for: outages, and what others have done.

The others end attempts by their nature: a worker was killed or stood still, a connection was lost while the server was
there, somebody held a lock, or a lease ended because nobody could renew it.
"""

MARKER = "Quokka"
"""Part of every name and, in lower case, of every e-mail that a run invents: by it they are found in logs."""


class Route(Enum):
    """How a job comes into the queue."""

    DIRECT = "direct"
    OUTBOX = "outbox"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One run. ``drain`` is how long the queue may take to be empty once the faults are over."""

    seed: int
    jobs: int
    duration: timedelta
    faults: frozenset[str] = frozenset(FAULTS)
    drain: timedelta = timedelta(seconds=60)
    workers: int = 3
    lease: timedelta = timedelta(seconds=3)
    routes: tuple[Route, ...] = tuple(Route)
    mutant: str | None = None
    """Which of ``chaos.mutants`` is the worker; ours as it is if there is none."""

    def random(self, purpose: str) -> Random:
        """Return the random numbers for one purpose: what one part of a run draws moves no other part."""
        return Random(f"{self.seed}:{purpose}")


@dataclass(frozen=True, order=True)
class Occurrence:
    """One fault at its time, in seconds after the start; ``number`` counts those of its kind."""

    at: float
    fault: str
    number: int


def schedule(plan: Plan) -> list[Occurrence]:
    """Return all faults of the run in the order of their times; each is over when the duration is."""
    return sorted(
        Occurrence(at, name, number)
        for name in FAULTS
        if name in plan.faults and FAULTS[name].every
        for number, at in enumerate(_times(FAULTS[name], plan, plan.random(f"times:{name}")))
    )


def _times(fault: Fault, plan: Plan, random: Random) -> list[float]:
    """Spread the occurrences; a kind of fault that was asked for comes at least once, also in a short run."""
    last = plan.duration.total_seconds() - fault.longest
    times = [min(fault.every * random.uniform(0.3, 1.0), max(_FIRST, last))]
    while (following := times[-1] + fault.every * random.uniform(0.5, 1.5)) < last:
        times.append(following)
    return times
