"""The seam between the engine, which claims jobs and records how they end, and the work that the jobs are.

The engine imports this module and nothing behind it: it knows neither arq, nor SQL, nor a registry. Two kinds of work
exist: handlers of a registry (``arqonce.execution.work``) and arq's functions (``arqonce.arq.functions``).
"""

import math
from collections.abc import Callable, Coroutine, Sequence
from contextvars import Context
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import Any, NamedTuple, Protocol, TypeAlias

from arqonce.wire.keys import FIRST_TIME_MS, QUEUE

UNKNOWN = "<unknown>"
"""The label of jobs that the worker does not know."""


class Claim(NamedTuple):
    """A job that is ours to run while its lease is renewed."""

    id: bytes
    """As it stands in Redis: any bytes."""

    job_id: str
    """The id in a form that can be logged and stored."""

    owner: str
    attempt: int
    message: bytes | None
    """``None`` if Redis has it no more."""

    score: bytes
    is_aborted: bool
    trouble: str | None
    """Why the message cannot be read from Redis."""

    excused: int = 0
    """How many of its starts do not count towards its limit: its worker died, and it was not alone there."""

    was_left: bool = False
    """Whether the attempt before this one never ended: its lease did, with its worker."""

    queue: str = QUEUE
    """Where it comes from, and goes back to."""

    offset_ms: int = 0
    """How far the queue's clock, by which jobs are due and expire, is ahead of this machine's; 0 up to a second."""

    raw: bytes | None = None
    """The message as Redis has it, where ``message`` is another form of it that the job's work reads."""

    def waited_ms(self, started_ms: int) -> int | None:
        """Return how long the job was due when it started; ``None`` if its score is no time, as after an abort."""
        try:
            due = float(self.score)
        except ValueError:
            return None
        if not FIRST_TIME_MS < due < math.inf:
            return None
        return max(0, round(started_ms + self.offset_ms - due))

    @property
    def is_hostile(self) -> bool:
        """Whether the id is none that a job may have."""
        return self.job_id.encode() != self.id


class Permit(NamedTuple):
    """What a job of a limited kind needs in order to run. Others with the same key share it."""

    key: str
    """The limit's name, and behind a colon the hash of a value of the payload, or nothing."""

    most: int

    per_ms: int
    """In this time so many may start; 0: so many may run at once."""


class Ended(NamedTuple):
    """The job is over."""

    succeeded: bool

    result: bytes | None = None
    """The message for ``arq:result:<id>``; ``None`` stores none."""

    keep: timedelta | None = None
    """How long that is kept; ``None`` keeps it for ever."""

    is_fenced: bool = True
    """Whether only the job's owner may record it. Where no receipt decides, the first outcome that arrives counts."""

    code: str | None = None
    """Why it failed, in a word, for metrics; ``None`` if it succeeded."""

    is_dead: bool = False
    """Whether it failed for a reason that nobody chose."""


@dataclass(frozen=True)
class Postponed:
    """The job is to run again, after a delay. An attempt that does not count is no step towards the job's limit."""

    delay: timedelta
    counts: bool = True
    expires: bool = False
    """Whether the message expires when its producer has said, though the job has not run by then."""


@dataclass(frozen=True)
class GivenBack:
    """The job returns to its place in the queue, as if it had not been started."""

    has_begun: bool = True
    """Whether it may have been started all the same. If certainly not, a rate limit does not count it."""


Outcome: TypeAlias = Ended | Postponed | GivenBack
"""What becomes of a job in the queue."""


class Again(Enum):
    """What else can come of a job of a batch: it has to run once more, in the same attempt."""

    ALONE = "alone"
    """It cannot be done with others: it is invalid, or has ended before."""

    APART = "apart"
    """The batch has failed, by this job or by another."""

    LATER = "later"
    """Its turn has not come: what is done was recorded without it."""


class Job(Protocol):
    """A claimed job, as the engine sees it. Whatever is wrong with its message is an outcome of ``run``."""

    is_aborted: bool
    """Whether somebody has asked for the job's abort. The engine sets it before it cancels the run."""

    @property
    def claim(self) -> Claim:
        """The claim that it was opened with."""
        ...

    @property
    def kind(self) -> str | None:
        """Jobs of one kind may run together; ``None``: this one runs alone."""
        ...

    @property
    def permits(self) -> Sequence[Permit]:
        """What it needs in order to run; nothing if its kind is not limited, or if it can only end. Always the same."""
        ...

    @property
    def limit(self) -> timedelta:
        """How long ``run`` may take. A run that takes longer, because it swallows its cancellation, is abandoned."""
        ...

    @property
    def held(self) -> timedelta | None:
        """How long the job's id stays locked after its end; ``None`` unlocks it."""
        ...

    @property
    def can_be_aborted(self) -> bool:
        """Whether the run may be cancelled for that now."""
        ...

    @property
    def context(self) -> Context | None:
        """The context of the run and of the last hook; ``None`` copies the engine's."""
        ...

    @property
    def has_hook(self) -> bool:
        """Whether ``recorded`` is to be called."""
        ...

    @property
    def name(self) -> str:
        """The job's name, for logs."""
        ...

    @property
    def label(self) -> str:
        """The job's name if the worker knows it, else ``UNKNOWN``: for metrics, whose labels are bounded."""
        ...

    async def run(self) -> Outcome:
        """Run one attempt.

        Raises:
            CancelledError: the run was cancelled, and not for an abort.
        """
        ...

    async def aborted(self) -> Outcome:
        """End the job as aborted; it may have ended otherwise before."""
        ...

    async def overdue(self) -> Outcome:
        """Decide on the job although its run does not end."""
        ...

    def interrupted(self, *, is_stopping: bool) -> Outcome:
        """Decide on a run that was cancelled, and not for an abort: by the worker's end, or by itself."""
        ...

    def broken_off(self, error: Exception) -> Outcome:
        """Decide on a run that raised something: a fault of ours."""
        ...

    async def recorded(self) -> None:
        """Do what is left to do when the outcome is recorded in the queue. Raises nothing."""


class Work(Protocol):
    """What jobs are."""

    def open(self, claim: Claim) -> Job:
        """Read a claimed job. Raises nothing."""
        ...

    def max_batch(self, kind: str) -> int:
        """Return how many jobs of this kind may run together."""
        ...

    def spread(self, kind: str) -> float:
        """Return how many runs of several jobs of this kind are worth having at once, from 0 to 1.

        0: two, as their jobs take the processor's time. 1: one in each slot, as their jobs wait for other servers.
        """
        ...

    async def run_together(self, jobs: Sequence[Any]) -> Sequence[Outcome | Again]:
        """Run one attempt of several jobs of one kind; answer in their order.

        Raises:
            CancelledError: the run was cancelled.
            TimeoutError: it took too long.
        """
        ...

    async def disconnect(self, task: Any) -> None:  # noqa: ANN401 - asyncio.Task of anything
        """Take away from a run that was abandoned whatever it could still have an effect with."""


class Gate(Protocol):
    """Says whether jobs can be run at all; while it is closed none is claimed."""

    @property
    def is_open(self) -> bool:
        """Whether it was open when somebody looked last."""
        ...

    async def check(self) -> bool:
        """Look whether it is open."""
        ...


class AlwaysOpen:
    """The gate of work that needs nothing but Redis."""

    is_open = True

    async def check(self) -> bool:
        """Return true."""
        return True


class Observer:
    """Hears what an engine does. This one does nothing; counters, metrics and the crash prover override methods."""

    def ready(self, be_quiet: Callable[[bool], bool]) -> None:
        """Hear that the first claim comes next. After ``be_quiet(True)`` none comes until ``be_quiet(False)``."""

    def running(self, run: Coroutine[Any, Any, Any]) -> Coroutine[Any, Any, Any]:
        """Return what to run instead of ``run``, the coroutine of one attempt: the same, or one around it."""
        return run

    def recording(self, record: Coroutine[Any, Any, Any]) -> Coroutine[Any, Any, Any]:
        """Return what to run instead of ``record``, the coroutine that records outcomes."""
        return record

    def claimed(self, jobs: Sequence[Job]) -> None:
        """Hear of jobs that one call has claimed."""

    def parked(self, jobs: Sequence[Job]) -> None:
        """Hear of claimed jobs that a limit lets wait: they are nobody's again."""

    def ran(self, jobs: Sequence[Job], seconds: float) -> None:
        """Hear that a run of these jobs, of one kind, is over or abandoned, and how long it took."""

    def concluded(self, ended: Sequence[tuple[Job, Outcome]]) -> None:
        """Hear of the outcomes of runs, before they are recorded."""

    def lost(self, job: Job) -> None:
        """Hear that a job's outcome was not recorded: another worker had claimed it meanwhile."""

    def recorded(self) -> None:
        """Hear that outcomes have been recorded."""


class ForwardingObserver(Observer):
    """Tells another observer whatever it hears. Subclasses override what they use, and call it as well."""

    def __init__(self, other: Observer) -> None:
        """Tell ``other``."""
        self._other = other

    def ready(self, be_quiet: Callable[[bool], bool]) -> None:
        """Pass it on."""
        self._other.ready(be_quiet)

    def running(self, run: Coroutine[Any, Any, Any]) -> Coroutine[Any, Any, Any]:
        """Pass it on."""
        return self._other.running(run)

    def recording(self, record: Coroutine[Any, Any, Any]) -> Coroutine[Any, Any, Any]:
        """Pass it on."""
        return self._other.recording(record)

    def claimed(self, jobs: Sequence[Job]) -> None:
        """Pass it on."""
        self._other.claimed(jobs)

    def parked(self, jobs: Sequence[Job]) -> None:
        """Pass it on."""
        self._other.parked(jobs)

    def ran(self, jobs: Sequence[Job], seconds: float) -> None:
        """Pass it on."""
        self._other.ran(jobs, seconds)

    def concluded(self, ended: Sequence[tuple[Job, Outcome]]) -> None:
        """Pass it on."""
        self._other.concluded(ended)

    def lost(self, job: Job) -> None:
        """Pass it on."""
        self._other.lost(job)

    def recorded(self) -> None:
        """Pass it on."""
        self._other.recorded()
