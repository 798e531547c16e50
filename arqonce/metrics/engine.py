"""Counts what an engine does. Counts runs, not jobs, wherever that is the same: a batch is counted at once."""

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property

from arqonce.metrics import families
from arqonce.metrics.store import Store, times_of
from arqonce.work import Ended, ForwardingObserver, GivenBack, Job, Observer, Outcome


class _Places:
    """Where the numbers of one kind of job are. Histograms begin with the first job."""

    def __init__(self, store: Store, kind: str) -> None:
        self._store, self._kind = store, kind
        self.claimed = store.place(families.CLAIMED, kind)
        self.succeeded = store.place(families.SUCCEEDED, kind)
        self.retried = store.place(families.RETRIED, kind)
        self.uncounted = store.place(families.UNCOUNTED, kind)
        self.given_back = store.place(families.GIVEN_BACK, kind)
        self.parked = store.place(families.PARKED, kind)

    @cached_property
    def wait(self) -> int:
        return self._store.place(families.WAIT, self._kind)

    @cached_property
    def run(self) -> int:
        return self._store.place(families.RUN, self._kind)

    @cached_property
    def run_jobs(self) -> int:
        return self._store.place(families.RUN_JOBS, self._kind)

    @cached_property
    def completion(self) -> int:
        return self._store.place(families.COMPLETION, self._kind)


class EngineMetrics(ForwardingObserver):
    """Hears what an engine does, counts it, and tells another observer."""

    def __init__(self, store: Store, other: Observer) -> None:
        """Count into ``store``."""
        super().__init__(other)
        self._store = store
        self._places: dict[str, _Places] = {}
        self._lost = store.place(families.LEASES_LOST)

    def know(self, kinds: Iterable[str]) -> None:
        """Begin these kinds with zeros, so that their first job is an increase."""
        for kind in kinds:
            self._of(kind)

    def _of(self, kind: str) -> _Places:
        found = self._places.get(kind)
        if found is None:
            found = self._places[kind] = _Places(self._store, kind)
        return found

    def claimed(self, jobs: Sequence[Job]) -> None:
        """Count the jobs, and how long they have waited."""
        super().claimed(jobs)
        now = time.time() + jobs[0].claim.offset_ms / 1000
        scores: dict[str, list[bytes]] = {}
        for job in jobs:
            scores.setdefault(job.label, []).append(job.claim.score)
        for kind, found in scores.items():
            places = self._of(kind)
            self._store.add(places.claimed, len(found))
            self._store.observe_since(places.wait, families.WAIT, times_of(found), now)

    def parked(self, jobs: Sequence[Job]) -> None:
        """Count the jobs."""
        super().parked(jobs)
        for kind, number in Counter(job.label for job in jobs).items():
            self._store.add(self._of(kind).parked, number)

    def ran(self, jobs: Sequence[Job], seconds: float) -> None:
        """Count the run."""
        super().ran(jobs, seconds)
        places, store = self._of(jobs[0].label), self._store
        store.observe(places.run, families.RUN, seconds)
        store.observe(places.run_jobs, families.RUN_JOBS, len(jobs))

    def concluded(self, ended: Sequence[tuple[Job, Outcome]]) -> None:
        """Count how the jobs have ended: in one pass, of which a success that is one of many costs least."""
        super().concluded(ended)
        scores: dict[str, list[bytes]] = {}
        succeeded: dict[str, int] = {}
        for job, outcome in ended:
            kind = job.label
            if type(outcome) is not Ended:
                self._count(kind, outcome)
                continue
            scores.setdefault(kind, []).append(job.claim.score)
            if outcome.succeeded:
                succeeded[kind] = succeeded.get(kind, 0) + 1
            else:
                self._count(kind, outcome)
        now = time.time() + (ended[0][0].claim.offset_ms / 1000 if ended else 0)
        for kind, found in scores.items():
            self._store.observe_since(self._of(kind).completion, families.COMPLETION, times_of(found), now)
        for kind, count in succeeded.items():
            self._store.add(self._of(kind).succeeded, count)

    def _count(self, kind: str, outcome: Outcome) -> None:
        store, places = self._store, self._of(kind)
        if isinstance(outcome, Ended):
            family = families.DEAD if outcome.is_dead else families.REFUSED
            store.add(store.place(family, kind, outcome.code or ""))
        elif isinstance(outcome, GivenBack):
            store.add(places.given_back)
        else:
            store.add(places.retried if outcome.counts else places.uncounted)

    def lost(self, job: Job) -> None:
        """Count a lost lease."""
        super().lost(job)
        self._store.add(self._lost)
