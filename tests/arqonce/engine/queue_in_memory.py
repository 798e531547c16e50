"""A queue as the engine sees it, without Redis: claims, leases that end by the loop's clock, and faults on demand."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum, auto
from typing import NamedTuple, TypeVar

from redis.exceptions import ConnectionError as RedisConnectionError

from arqonce.engine.ends import GiveUp
from arqonce.engine.permits import Admission, Applicant
from arqonce.engine.queue import Claimed, Look
from arqonce.work import Claim

AnswerT = TypeVar("AnswerT")

_HALF_A_ROUND_TRIP = 0.0005
"""In seconds."""

_NEXT = 0.0001
"""In seconds: between two answers on one connection."""

_LATE = 1.0
"""In seconds."""

_PARKED = 3.0
"""In seconds."""


class Fault(Enum):
    """How a call fails."""

    UNSENT = auto()
    """It is not carried out."""

    UNANSWERED = auto()
    """It is carried out, and its answer is lost."""

    LATE = auto()
    """It is carried out at once, and its answer comes a second later."""


class Record(NamedTuple):
    """What the engine has recorded of one attempt."""

    job_id: str
    owner: str
    outcome: str
    value: bytes | int


@dataclass
class _Queued:
    message: bytes
    due: float
    ended: int = 0
    """How many attempts have counted."""

    owner: str | None = None
    lease_end: float = 0.0


class QueueInMemory:
    """One queue with one worker; another one only takes jobs away from it."""

    refusal = None

    def __init__(self, lease: timedelta = timedelta(hours=1)) -> None:
        """Begin empty, and without faults."""
        self.jobs: dict[bytes, _Queued] = {}
        self.claimed: list[str] = []
        """The jobs of all claims, in their order."""
        self.records: list[Record] = []
        self.fault: Callable[[str], Fault | None] = lambda _call: None
        """Says for each call, by its name, how it fails."""
        self.on_claimed: Callable[[], None] = lambda: None
        self.on_news: Callable[[], None] = lambda: None
        self.ended_leases = 0
        """How many claims were of jobs whose lease had ended."""
        self.parked: list[bytes] = []
        """Which jobs were parked."""
        self._permits: defaultdict[str, set[bytes]] = defaultdict(set)
        self._lease = lease.total_seconds()
        self._aborts: set[bytes] = set()
        self._calls = 0
        self.watch = _Watch(self)
        self._claim_answered = 0.0
        self._unanswered: set[str] = set()

    @property
    def results(self) -> dict[str, bytes | int]:
        """The results of the jobs that are over."""
        return {record.job_id: record.value for record in self.records if record.outcome == "done"}

    def enqueue(self, message: str, *ids: str, delay: float = 0) -> None:
        """Enqueue jobs with this message, due in so many seconds."""
        due = _now() + delay
        self.jobs |= {job_id.encode(): _Queued(message.encode(), due) for job_id in ids}
        self.on_news()

    def abort(self, job_id: str) -> None:
        """Ask for the job's abort, as a producer does."""
        self._aborts.add(job_id.encode())

    def take_away(self, job_id: str) -> None:
        """Claim the job for another worker."""
        self.jobs[job_id.encode()].owner = "another"

    async def claim(self, room: int, *, watch: timedelta, is_idle: bool) -> Claimed:
        """Claim, and watch if that is wanted. What an unanswered call has claimed is given back first."""
        assert room > 0
        self._calls += 1
        owner = f"us:{self._calls}:{'idle' if is_idle else 'busy'}"
        try:
            claimed = await self.call("claim", lambda: self._claim(owner, room, watch=watch))
        except RedisConnectionError:
            self._unanswered.add(owner)
            raise
        self.on_claimed()
        self.claimed += [claim.job_id for claim in claimed.claims]
        return claimed

    def _claim(self, owner: str, room: int, *, watch: timedelta) -> Claimed:
        for job in self.jobs.values():
            if job.owner in self._unanswered:
                job.owner, job.due = None, 0
        self._unanswered.clear()
        due = [job_id for job_id, job in self.jobs.items() if _ready_at(job) <= _now()]
        claims = [self._take(job_id, owner) for job_id in due[:room]]
        later = min((_ready_at(job) - _now() for job in self.jobs.values()), default=86400)
        is_full = len(claims) >= room
        return Claimed(
            claims=claims,
            is_full=is_full,
            next_due=timedelta(seconds=max(0, later)),
            watches=bool(watch) and not is_full,
            watched_for=timedelta(0),
        )

    def _take(self, job_id: bytes, owner: str) -> Claim:
        job = self.jobs[job_id]
        was_left = job.owner is not None
        job.ended += was_left
        self.ended_leases += was_left
        job.owner, job.lease_end = owner, _now() + self._lease
        is_aborted = job_id in self._aborts
        score = str(job.due).encode()
        return Claim(
            job_id, job_id.decode(), owner, job.ended + 1, job.message, score, is_aborted, None, was_left=was_left
        )

    async def take_permits(self, applicants: Sequence[Applicant]) -> list[Admission]:
        """Give permits, or park: in memory for three seconds, or until a permit is given back. Only of jobs at once."""
        return await self.call("take_permits", lambda: [self._take_permits(one) for one in applicants])

    def _take_permits(self, one: Applicant) -> Admission:
        job_id = one.claim.id
        held = [self._holders_of(permit.key) for permit in one.permits]
        job = self.jobs.get(job_id)
        if job is None or job.owner != one.claim.owner:
            return Admission.RETURNS
        if any(job_id not in jobs and len(jobs) >= permit.most for jobs, permit in zip(held, one.permits, strict=True)):
            job.owner, job.due = None, _now() + _PARKED
            self.parked.append(job_id)
            return Admission.PARKED
        if not one.has_slot:
            return Admission.RETURNS
        for jobs in held:
            jobs.add(job_id)
        return Admission.STARTS

    def _holders_of(self, permit: str) -> set[bytes]:
        jobs = self._permits[permit]
        jobs &= {job_id for job_id in jobs if job_id in self.jobs and self.jobs[job_id].owner is not None}
        return jobs

    def _free(self, given: GiveUp) -> None:
        for permit in given.permits:
            self._permits[permit].discard(given.claim.id)
        if given.permits:
            for job_id in self.parked:
                if (job := self.jobs.get(job_id)) is not None and job.owner is None:
                    job.due = min(job.due, _now())
            self.on_news()

    async def give_up(self, jobs: Sequence[GiveUp]) -> list[bool]:
        """End attempts, each if it is still its owner's."""
        answers = await self.call("give_up", lambda: [self._give_up(job) for job in jobs])
        if any(job.outcome != "done" for job in jobs):
            self.on_news()
        return answers

    def _give_up(self, given: GiveUp) -> bool:
        claim, (outcome, owner, attempts, *_) = given.claim, given.group
        job = self.jobs.get(claim.id)
        if job is None or job.owner != owner:
            return False
        self.records.append(Record(claim.job_id, owner, outcome, given.value))
        self._free(given)
        job.owner, job.ended = None, attempts
        if outcome == "done":
            del self.jobs[claim.id]
            self._aborts.discard(claim.id)
        elif isinstance(given.value, bytes):
            job.due = float(given.value)
        else:
            job.due = _now() + given.value / 1000
        return True

    async def renew(self, claims: Collection[Claim]) -> set[bytes]:
        """Renew the leases that are still their owners'."""
        return await self.call("renew", lambda: {claim.id for claim in claims if not self._renew(claim)})

    def _renew(self, claim: Claim) -> bool:
        job = self.jobs.get(claim.id)
        if job is None or job.owner != claim.owner:
            return False
        job.lease_end = _now() + self._lease
        return True

    def own_renewals(self) -> "_NoRenewals":
        """Return what renews nothing: on this clock no loop is ever blocked."""
        return _NoRenewals()

    async def uncount(self, claim: Claim) -> None:
        """Take back the attempt."""

        def take_back() -> None:
            self.jobs[claim.id].ended -= 1

        await self.call("uncount", take_back)

    async def is_queue_empty(self) -> bool:
        """Say whether there is no job, due or not."""
        return await self.call("is_queue_empty", lambda: not self.jobs)

    async def aborted(self, claims: Collection[Claim]) -> set[bytes]:
        """Return what was asked for."""
        ids = {claim.id for claim in claims}
        return await self.call("aborted", lambda: self._aborts & ids)

    def doubt(self) -> None:
        """Never be asked to: all news are announced."""
        raise AssertionError("the queue has announced a job, and the engine says it has not")

    async def call(self, name: str, carry_out: Callable[[], AnswerT]) -> AnswerT:
        """Do it in half a round trip, or fail as ``fault`` says."""
        fault = self.fault(name)
        await asyncio.sleep(_HALF_A_ROUND_TRIP)
        if fault is Fault.UNSENT:
            raise RedisConnectionError("refused")
        answer = carry_out()
        due = _now() + (_LATE if fault is Fault.LATE else _HALF_A_ROUND_TRIP)
        if name == "claim":
            self._claim_answered = due
        elif name == "give_up":  # on the claims' connection, or on another if that is broken, and claims with it
            due = max(due, self._claim_answered + _NEXT)
        await asyncio.sleep(due - _now())
        if fault is Fault.UNANSWERED:
            raise RedisConnectionError("reset")
        return answer


class _NoRenewals:
    async def renew(self, claims: Collection[Claim]) -> None:
        """Do nothing: only a machine that stands still can ask for it."""

    def close(self) -> None:
        pass


def _ready_at(job: _Queued) -> float:
    return job.due if job.owner is None else job.lease_end


def _now() -> float:
    return asyncio.get_running_loop().time()


class _Watch:
    """The place of the only worker among the idle ones."""

    def __init__(self, queue: "QueueInMemory") -> None:
        self._queue = queue

    async def renew(self, watch: timedelta) -> bool:
        """Go on watching: nobody else does."""
        return await self._queue.call("renew_watch", lambda: bool(watch))

    async def resign(self) -> None:
        """Watch no more."""
        await self._queue.call("resign", lambda: None)

    async def wait_for_baton(self, longest: timedelta) -> bool:
        """Never be asked to: nobody else watches."""
        raise AssertionError(longest)

    async def look(self, watch: timedelta, *, is_first: bool = False) -> Look:
        """Never be asked to, either."""
        raise AssertionError(watch, is_first)

    async def retire(self) -> None:
        """Never be asked to, either."""
        raise AssertionError

    def stop_waiting(self) -> None:
        """Do nothing."""
